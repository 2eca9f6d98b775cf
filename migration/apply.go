package migration

import (
	"fmt"
	"sync"

	"github.com/fineline-vmm/fineline/coherence/diff"
	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// arrived is the memory of a machine that comes, as the appliers of all streams know it.
type arrived struct {
	mem     *memory.Guest
	regions []memory.Region

	mu      sync.Mutex
	written *memory.PageSet // pages that hold content; all others are zero

	round                   int // of the last ROUND_END on the main connection
	pages, zeroPages, lines uint64
}

// newArrived empties the memory, so that a page which is never sent is zero.
func newArrived(mem *memory.Guest) (*arrived, error) {
	if err := mem.Reset(); err != nil {
		return nil, fmt.Errorf("cannot clear the new machine's memory: %w", err)
	}
	return &arrived{mem: mem, regions: mem.Regions(), written: mem.NewPageSet()}, nil
}

// applier stores the page records of one stream in guest memory. Nothing else of the receiver reaches
// the RAM. It checks every record at its use (design law 5).
type applier struct {
	*arrived

	round int    // of the last ROUND_END on this stream
	open  bool   // a PAGES frame came since
	next  uint64 // pages of a round ascend: the next record begins here or later
	came  wire.RoundEnd
	lines uint64 // of the open round
}

func newApplier(a *arrived) *applier { return &applier{arrived: a} }

// pagesFrame stores the records of one PAGES frame.
func (a *applier) pagesFrame(payload []byte) error {
	a.open = true
	return wire.EachRecord(payload, a.record)
}

func (a *applier) record(rec wire.Record) error {
	if rec.Kind == wire.KindLines {
		return rec.EachEntry(a.edit)
	}
	count := uint64(rec.Count)
	if err := a.advance(rec.First, count); err != nil {
		return err
	}
	if rec.Kind == wire.KindZero {
		a.came.ZeroPages += count
		return a.zero(rec.First, count)
	}
	a.came.Pages += count
	a.lines += count * diff.PageLines
	a.hasContent(rec.First, count)
	return a.mem.WriteAt(memory.GPA(rec.First*memory.PageSize), rec.Data)
}

// edit changes those that a record has of a page.
func (a *applier) edit(page uint64, lines wire.LineBody) error {
	if err := a.advance(page, 1); err != nil {
		return err
	}
	a.came.Pages++
	a.lines += uint64(lines.Count())
	a.hasContent(page, 1)
	return a.mem.EditPage(memory.GPA(page*memory.PageSize), lines.Apply)
}

// advance admits the next pages of the round.
func (a *applier) advance(first, count uint64) error {
	if first < a.next {
		return fmt.Errorf("%w: page %#x comes after page %#x of the same round", wire.ErrProtocol, first, a.next-1)
	}
	if !a.inRAM(first, count) {
		return fmt.Errorf("%w: %d pages at %#x are not in the machine's memory", wire.ErrProtocol, count, first*memory.PageSize)
	}
	a.next = first + count
	return nil
}

func (a *arrived) hasContent(first, count uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.written.AddRange(memory.GPA(first*memory.PageSize), count*memory.PageSize)
}

func (a *arrived) mayHaveContent(gpa memory.GPA) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.written.Has(gpa)
}

// zero clears the pages that hold content. The others are zero and stay untouched.
func (a *arrived) zero(first, count uint64) error {
	for number := first; number < first+count; number++ {
		gpa := memory.GPA(number * memory.PageSize)
		if !a.mayHaveContent(gpa) {
			continue
		}
		err := a.mem.EditPage(gpa, func(page []byte) error {
			clear(page)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// inRAM reports whether all the pages exist; they may cross regions that touch. Regions are sorted.
func (a *arrived) inRAM(first, count uint64) bool {
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

// roundEnd closes a round; what it says must be what came on this stream.
func (a *applier) roundEnd(end *wire.RoundEnd) error {
	if end.Round != a.round+1 || end.Pages != a.came.Pages || end.ZeroPages != a.came.ZeroPages {
		return fmt.Errorf("%w: ROUND_END says round %d with %d pages and %d zero pages, and round %d had %d and %d",
			wire.ErrProtocol, end.Round, end.Pages, end.ZeroPages, a.round+1, a.came.Pages, a.came.ZeroPages)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.arrived.round = max(a.arrived.round, end.Round)
	a.pages += a.came.Pages
	a.zeroPages += a.came.ZeroPages
	a.arrived.lines += a.lines
	a.round, a.open, a.next, a.came, a.lines = end.Round, false, 0, wire.RoundEnd{}, 0
	return nil
}
