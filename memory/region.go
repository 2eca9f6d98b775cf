package memory

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
)

// GPA is a guest-physical address, in bytes.
type GPA uint64

// PageSize is the unit of residency and of dirty collection, in bytes.
const PageSize = 4096

// maxRegions bounds what a peer or a file can make New do: each region costs
// one descriptor and two mappings.
const maxRegions = 64

// maxGPABits is the widest physical address of x86-64 (Intel SDM vol. 3, 4.1.4).
const maxGPABits = 52

// Region is one range of guest RAM. Base and SizeBytes are multiples of
// PageSize.
type Region struct {
	Base      GPA    `json:"base"`
	SizeBytes uint64 `json:"size_bytes"`
}

// Mapping is a region with the address in this process of its guest mapping:
// what a hypervisor's memory slot needs, and nothing else may use.
type Mapping struct {
	Region
	HostAddr uintptr
}

// span is a region with the place of its bits in a bitmap over all regions.
// Every region begins on a word of its own, so that a bitmap of KVM, which is
// one per slot, joins without shifts.
type span struct {
	Region
	firstWord int
}

func (s *span) pages() uint64 { return s.SizeBytes / PageSize }

func (s *span) words() int { return int((s.pages() + 63) / 64) }

// layout is the immutable shape of a Guest, shared with its page sets.
type layout struct {
	spans     []span
	words     int
	sizeBytes uint64
}

// newLayout sorts and checks regions. Its errors wrap ErrBadLayout.
func newLayout(regions []Region) (*layout, error) {
	if len(regions) == 0 {
		return nil, fmt.Errorf("%w: 0 bytes of memory asked for; give at least one page (%d bytes)", ErrBadLayout, PageSize)
	}
	if len(regions) > maxRegions {
		return nil, fmt.Errorf("%w: %d regions, at most %d are possible", ErrBadLayout, len(regions), maxRegions)
	}
	sorted := slices.Clone(regions)
	slices.SortFunc(sorted, func(a, b Region) int { return cmp.Compare(a.Base, b.Base) })
	l := &layout{spans: make([]span, 0, len(sorted))}
	var end GPA
	for i, r := range sorted {
		if err := checkRegion(r); err != nil {
			return nil, err
		}
		if i > 0 && r.Base < end {
			return nil, fmt.Errorf("%w: the region at %#x overlaps the one before it", ErrBadLayout, uint64(r.Base))
		}
		end = r.Base + GPA(r.SizeBytes)
		s := span{Region: r, firstWord: l.words}
		l.spans = append(l.spans, s)
		l.words += s.words()
		l.sizeBytes += r.SizeBytes
	}
	return l, nil
}

func checkRegion(r Region) error {
	base := uint64(r.Base)
	switch {
	case r.SizeBytes == 0:
		return fmt.Errorf("%w: 0 bytes of memory asked for at %#x; give at least one page (%d bytes)", ErrBadLayout, base, PageSize)
	case base%PageSize != 0 || r.SizeBytes%PageSize != 0:
		return fmt.Errorf("%w: the region at %#x of %d bytes is not a whole number of pages of %d bytes", ErrBadLayout, base, r.SizeBytes, PageSize)
	case base > 1<<maxGPABits || r.SizeBytes > 1<<maxGPABits-base:
		return fmt.Errorf("%w: the region at %#x of %d bytes ends beyond %d address bits", ErrBadLayout, base, r.SizeBytes, maxGPABits)
	}
	return nil
}

// find returns the index of the region that holds gpa, or -1. Guests have one
// or two regions, so a loop beats a search.
func (l *layout) find(gpa GPA) int {
	for i := range l.spans {
		if s := &l.spans[i]; uint64(gpa-s.Base) < s.SizeBytes { // below Base the difference wraps
			return i
		}
	}
	return -1
}

// contains reports whether all of the n bytes at gpa are RAM; they may cross
// regions that touch.
func (l *layout) contains(gpa GPA, n uint64) bool {
	for i := l.find(gpa); i >= 0; i = l.find(gpa) {
		s := &l.spans[i]
		rest := s.SizeBytes - uint64(gpa-s.Base)
		if n <= rest {
			return true
		}
		gpa, n = gpa+GPA(rest), n-rest
	}
	return false
}

// equal reports whether a bit means the same page in both layouts.
func (l *layout) equal(o *layout) bool {
	return l == o || slices.Equal(l.spans, o.spans)
}

// pageMask returns the bits of word w of a region that stand for its pages
// first to last, inclusive. The caller keeps w in first/64..last/64.
func pageMask(w, first, last uint64) uint64 {
	mask := ^uint64(0)
	if w == first/64 {
		mask <<= first % 64
	}
	if w == last/64 {
		mask &= ^uint64(0) >> (63 - last%64)
	}
	return mask
}

// rangeBits calls fn with the number of every set bit of word, from low to
// high, until fn returns false; it reports whether all were seen.
func rangeBits(word uint64, fn func(bit int) bool) bool {
	for ; word != 0; word &= word - 1 {
		if !fn(bits.TrailingZeros64(word)) {
			return false
		}
	}
	return true
}
