// Package baseline is the memory of baselines: what pages are compared with to find their changed lines.
//
// A baseline is a twin, a copy of the page, or a sum for each line (package diff). Whoever keeps
// baselines - a tracker's engine, a migration - decides which and within what budget; the memory comes
// from here, in chunks of as many pages as 2 MiB of guest have.
//
// The chunks are mapped and not on Go's heap: they are as large as the guest, come and go with whoever
// compares, and must be the host's again at once. A new chunk reads as zeros and takes no memory until it is
// written, which suits: the twin of a page that was never touched is zeros, and so is the sum of a zero line.
package baseline

import (
	"github.com/fineline-vmm/fineline/coherence/diff"
)

// Sizes of a chunk.
const (
	ChunkBytes = 2 << 20 // of guest memory
	ChunkPages = ChunkBytes / diff.PageBytes

	TwinsBytes = ChunkBytes
	SumsBytes  = ChunkPages * diff.PageLines * 8
)
