package diff

import "fmt"

// Sizes of what is compared.
const (
	PageBytes = 4096
	LineBytes = 64
	PageLines = PageBytes / LineBytes
)

// Mask returns the lines of page that differ from those of twin. Both are PageBytes long, as
// in every function here, at any alignment; another length is a panic.
func Mask(page, twin []byte) uint64 { return best.Mask(page, twin) }

// NonZero returns the lines of page that have a byte other than zero.
func NonZero(page []byte) uint64 { return best.NonZero(page) }

// Update returns the lines of page that differ from those of twin and copies them to twin.
// A byte of page is read once: what twin gets is what was compared, though page changes
// meanwhile, and a line that is not in the mask had the bytes of twin when it was read. Who
// needs the lines takes them from twin. Nobody else may use twin during the call.
func Update(page, twin []byte) uint64 { return best.Update(page, twin) }

// UpdateCount is Update; it also returns how many bytes differed.
func UpdateCount(page, twin []byte) (mask uint64, changedBytes int) {
	return best.UpdateCount(page, twin)
}

// first checks a page's length.
func first(page []byte) *byte {
	if len(page) != PageBytes {
		panicLength(len(page))
	}
	return &page[0]
}

func panicLength(n int) {
	panic(fmt.Sprintf("diff: a page of %d bytes, want %d", n, PageBytes))
}
