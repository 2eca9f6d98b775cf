package migration

import (
	"fmt"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// applier stores page records in guest memory. It is the receiver's only way to the RAM, and checks
// every record at its use (design law 5).
type applier struct {
	mem     *memory.Guest
	regions []memory.Region
	written *memory.PageSet // pages that hold content; all others are zero

	round     int    // of the last ROUND_END
	open      bool   // a PAGES frame came since
	next      uint64 // pages of a round ascend: the next record begins here or later
	pages     uint64 // of the open round
	zeroPages uint64

	totalPages, totalZeroPages uint64
}

// newApplier empties the memory, so that a page which is never sent is zero.
func newApplier(mem *memory.Guest) (*applier, error) {
	if err := mem.Reset(); err != nil {
		return nil, fmt.Errorf("cannot clear the new machine's memory: %w", err)
	}
	return &applier{mem: mem, regions: mem.Regions(), written: mem.NewPageSet()}, nil
}

// pagesFrame stores the records of one PAGES frame.
func (a *applier) pagesFrame(payload []byte) error {
	a.open = true
	for len(payload) > 0 {
		rec, rest, err := wire.NextRecord(payload)
		if err != nil {
			return err
		}
		if err := a.record(rec); err != nil {
			return err
		}
		payload = rest
	}
	return nil
}

func (a *applier) record(rec wire.Record) error {
	count := uint64(rec.Count)
	if rec.Kind == wire.KindLines {
		return fmt.Errorf("%w: lines, which were not agreed on", wire.ErrProtocol)
	}
	if rec.First < a.next {
		return fmt.Errorf("%w: page %#x comes after page %#x of the same round", wire.ErrProtocol, rec.First, a.next-1)
	}
	if !a.inRAM(rec.First, count) {
		return fmt.Errorf("%w: %d pages at %#x are not in the machine's memory", wire.ErrProtocol, count, rec.First*memory.PageSize)
	}
	a.next = rec.First + count
	if rec.Kind == wire.KindZero {
		a.zeroPages += count
		return a.zero(rec.First, count)
	}
	a.pages += count
	gpa := memory.GPA(rec.First * memory.PageSize)
	for page := range count {
		a.written.Add(gpa + memory.GPA(page*memory.PageSize))
	}
	return a.mem.WriteAt(gpa, rec.Data)
}

// zero clears the pages that hold content. The others are zero and stay untouched.
func (a *applier) zero(first, count uint64) error {
	for number := first; number < first+count; number++ {
		gpa := memory.GPA(number * memory.PageSize)
		if !a.written.Has(gpa) {
			continue
		}
		if err := a.mem.WriteAt(gpa, zeroPage[:]); err != nil {
			return err
		}
	}
	return nil
}

// inRAM reports whether all the pages exist; they may cross regions that touch. Regions are sorted.
func (a *applier) inRAM(first, count uint64) bool {
	for _, r := range a.regions {
		base, pages := uint64(r.Base)/memory.PageSize, r.SizeBytes/memory.PageSize
		if first < base || first-base >= pages {
			continue
		}
		here := min(count, pages-(first-base))
		first, count = first+here, count-here
		if count == 0 {
			return true
		}
	}
	return false
}

// roundEnd closes a round; what it says must be what came.
func (a *applier) roundEnd(end *wire.RoundEnd) error {
	if end.Round != a.round+1 || end.Pages != a.pages || end.ZeroPages != a.zeroPages {
		return fmt.Errorf("%w: ROUND_END says round %d with %d pages and %d zero pages, and round %d had %d and %d",
			wire.ErrProtocol, end.Round, end.Pages, end.ZeroPages, a.round+1, a.pages, a.zeroPages)
	}
	a.totalPages += a.pages
	a.totalZeroPages += a.zeroPages
	a.round, a.open, a.next, a.pages, a.zeroPages = end.Round, false, 0, 0, 0
	return nil
}
