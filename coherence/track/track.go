package track

import (
	"errors"
	"fmt"

	"github.com/fineline-vmm/fineline/coherence/diff"
	"github.com/fineline-vmm/fineline/memory"
)

// LineBytes is the size of a cache line, and LinesPerPage how many a page has: as many as a
// mask has bits.
const (
	LineBytes    = diff.LineBytes
	LinesPerPage = diff.PageLines
)

// Mode is how a context sees lines; the package comment compares them.
type Mode uint8

// The modes. The values are part of the device's ABI.
const (
	Diff   Mode = iota // lines whose bytes differ from the last harvest's
	Stores             // lines stored to: stores exit and are applied by the VMM
	Homed              // lines stored to: all accesses exit into modelled caches
)

func (m Mode) String() string {
	switch m {
	case Diff:
		return "diff"
	case Stores:
		return "stores"
	case Homed:
		return "homed"
	}
	return fmt.Sprintf("mode %d", uint8(m))
}

// Errors of a context. What wraps none of them is the host's failure.
var (
	ErrBadMode       = errors.New("this machine does not track in this mode")
	ErrBadRange      = errors.New("not whole lines of guest RAM")
	ErrNotRegistered = errors.New("the range is not registered")
	ErrState         = errors.New("the context is not in the state for this")
	ErrNoSpace       = errors.New("no room for more ranges")
)

// Range is whole lines of guest RAM.
type Range struct {
	Base      memory.GPA
	SizeBytes uint64
}

// Page is what a harvest tells of one page.
type Page struct {
	GPA   memory.GPA // of the page; of Process: its offset in the region
	Lines uint64     // bit i: line i; never zero
	// ChangedBytes is how many bytes of the page differed, added up over the looks since the last harvest; only
	// when Counted.
	ChangedBytes uint32
	Counted      bool
	// Inexact says that Lines may hold more lines than were written: there was no baseline for
	// the page, or it could not be watched by the line.
	Inexact bool
}

// Tracker answers which lines changed since it was armed.
type Tracker interface {
	// Arm begins: each write from its return on is reported by a later Harvest.
	Arm() error
	// Harvest calls emit with at most max pages (0: all) that were written since they were
	// harvested last, in rising order, and re-arms them: who reads a line after Harvest has
	// every write that no later Harvest reports; in Diff only if nobody writes the line until it
	// is read, see the package comment. more says that pages were left out; the next
	// Harvest goes on with them before it looks again.
	Harvest(max int, emit func(Page)) (more bool, err error)
	// Stop looks a last time and ends the tracking. What was found waits for Harvest.
	Stop() error
}
