package track

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/fineline-vmm/fineline/coherence"
	"github.com/fineline-vmm/fineline/coherence/baseline"
	"github.com/fineline-vmm/fineline/memory"
)

// Slots changes how the guest reaches its RAM: loads of readOnly pages are native and stores exit, all
// accesses to absent pages exit, the rest is native. An access that exits comes to
// Engine.Access. While there is such a page only one vCPU runs at a time (see the package comment).
type Slots interface {
	SetAccess(readOnly, absent *memory.PageSet) error
	// Reserved returns the pages that the processors use by themselves now: page tables, descriptor tables, the
	// stacks of exceptions. They must stay native.
	Reserved() (*memory.PageSet, error)
}

// Options are the limits of an Engine.
type Options struct {
	Baseline Baseline // of contexts that do not count bytes
	// BudgetBytes bounds the memory of all baselines; where it ends, whole pages are
	// reported. With Hash, twins for contexts that count bytes get half of it. 0: see defaultBudget.
	BudgetBytes uint64
	MaxRanges   int // of all contexts together; 0: DefaultMaxRanges
	// Caches is the model of Homed, one cache a vCPU.
	Caches coherence.Config
}

// MaxExactRanges is how many ranges all contexts in modes other than Diff may have together: each is a slot of
// KVM's, and to change many takes long, with the guest stopped.
const MaxExactRanges = 1024

// DefaultMaxRanges is enough for 512 MiB in single pages, and fits a saved machine.
const DefaultMaxRanges = 128 << 10

// Engine finds written lines of one guest for any number of contexts. Its methods and those of
// its contexts are safe for concurrent use.
type Engine struct {
	mem   *memory.Guest
	pages *memory.Tracker
	slots Slots
	opts  Options

	mu       sync.Mutex // before exact.mu
	contexts []*Context
	base     *baselines
	compared *memory.PageSet // with a baseline: those of armed Diff contexts
	dirty    *memory.PageSet // scratch
	unseen   *memory.PageSet // without a baseline yet: restored, or missing; nil: none

	exact exact
}

// NewEngine tracks mem, whose guest stores src reports. slots may be nil: then there is only
// Diff.
func NewEngine(mem *memory.Guest, src memory.DirtySource, slots Slots, opts Options) *Engine {
	if opts.BudgetBytes == 0 {
		opts.BudgetBytes = defaultBudget(mem, opts.Baseline)
	}
	if opts.MaxRanges == 0 {
		opts.MaxRanges = DefaultMaxRanges
	}
	e := &Engine{
		mem: mem, pages: mem.Track(src), slots: slots, opts: opts,
		base:     newBaselines(opts.Baseline, opts.BudgetBytes),
		compared: mem.NewPageSet(), dirty: mem.NewPageSet(),
	}
	return e
}

// defaultBudget is enough for the baselines of all RAM. A guest that asks for twins by counting bytes gets no more
// than that again, or 64 MiB: it must not have the VMM double its memory.
func defaultBudget(mem *memory.Guest, kind Baseline) uint64 {
	chunks := mem.SizeBytes()/chunkBytes + 2*uint64(len(mem.Regions()))
	if kind == Twin {
		return chunks * baseline.TwinsBytes
	}
	return 2 * max(chunks*baseline.SumsBytes, 64<<20)
}

// Modes returns what NewContext accepts.
func (e *Engine) Modes() []Mode {
	if e.slots == nil {
		return []Mode{Diff}
	}
	return []Mode{Diff, Stores, Homed}
}

// MaxRanges returns how many ranges all contexts together may have.
func (e *Engine) MaxRanges() int { return e.opts.MaxRanges }

// armedDiffs are the contexts that look reports to. Preconditions: e.mu held.
func (e *Engine) armedDiffs(fn func(*Context)) {
	for _, c := range e.contexts {
		if c.armed && c.opts.Mode == Diff {
			fn(c)
		}
	}
}

// look brings every armed Diff context to date. Preconditions: e.mu held, one is armed.
func (e *Engine) look() error {
	if e.unseen != nil {
		return e.see()
	}
	e.dirty.Clear()
	err := e.pages.Collect(e.dirty) // what was taken before an error is in dirty
	e.dirty.Intersect(e.compared)
	e.dirty.Range(func(gpa memory.GPA) bool {
		e.tell(e.compare(gpa))
		return true
	})
	return err
}

// Look brings the contexts to date, so that State, for which the guest stands still, has less to do.
func (e *Engine) Look() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.watching() {
		_ = e.look() // what was not taken waits for the next look, which says the error
	}
}

// compare looks at one page of e.compared. Preconditions: e.mu held.
func (e *Engine) compare(gpa memory.GPA) (found Page) {
	chunk := e.base.chunks[chunkOf(gpa)]
	// It is a page of RAM; a closed guest's reads as zeros, to nobody's harm.
	seen, err := e.mem.TryViewPage(gpa, func(page []byte) { found = e.base.update(chunk, gpa, page) })
	if !seen && err == nil { // missing, though it had a baseline: all of it may become another
		found = Page{GPA: gpa, Lines: ^uint64(0), Inexact: true}
	}
	return found
}

// tell adds what was found to the contexts that want it. Preconditions: e.mu held.
func (e *Engine) tell(found Page) {
	if found.Lines == 0 {
		return
	}
	e.armedDiffs(func(c *Context) {
		mine := found
		mine.Lines &= c.ranges.lines(found.GPA)
		mine.Counted = found.Counted && mine.Lines == found.Lines
		if mine.Lines != 0 {
			c.found.add(mine)
		}
	})
}

// begin gives pages their baselines, after the contexts that are armed already were brought
// to date. Preconditions: e.mu held.
func (e *Engine) begin(rs ranges, count bool) error {
	if err := e.watchPages(); err != nil {
		return err
	}
	added := e.mem.NewPageSet()
	rs.addTo(added)
	added.Subtract(e.compared)
	data, err := e.dataOf(added) // after the page log was started, so that what it misses is logged
	if err != nil {
		return e.unwatchPages(err)
	}
	for _, key := range rs.chunkKeys() {
		chunk := e.base.reserve(key, count)
		if count {
			e.promote(key, chunk)
		}
	}
	missing := e.takeBaseline(added, data)
	if missing != nil {
		if e.unseen == nil {
			e.unseen = e.mem.NewPageSet()
		}
		e.unseen.Union(missing)
	}
	e.compared.Union(added)
	return nil
}

// dataOf returns a set that has those of pages that may hold data. Few pages are taken to have: a guest
// registers a long list in pieces, and to find all data takes longer than to touch some that have none.
func (e *Engine) dataOf(pages *memory.PageSet) (*memory.PageSet, error) {
	if pages.Len() < chunkPages {
		return pages, nil
	}
	return e.mem.DataPages()
}

// watchPages has the page log running and its reports up to now told. Preconditions: e.mu held.
func (e *Engine) watchPages() error {
	if e.watching() {
		return e.look()
	}
	return e.pages.Start()
}

// watching reports whether a Diff context is armed. Preconditions: e.mu held.
func (e *Engine) watching() bool {
	return slices.ContainsFunc(e.contexts, func(c *Context) bool { return c.armed && c.opts.Mode == Diff })
}

// unwatchPages stops the page log when nobody needs it. Preconditions: e.mu held.
func (e *Engine) unwatchPages(err error) error {
	if e.watching() {
		return err
	}
	if stopErr := e.pages.Stop(); err == nil {
		return stopErr
	}
	return err
}

// takeBaseline makes what pages hold now their baseline. Those that are missing it removes from pages and returns; nil: none.
// Preconditions: e.mu held.
func (e *Engine) takeBaseline(pages, data *memory.PageSet) (missing *memory.PageSet) {
	seen := map[*baselineChunk]bool{}
	pages.Range(func(gpa memory.GPA) bool {
		chunk := e.base.chunks[chunkOf(gpa)]
		seen[chunk] = true
		if !data.Has(gpa) && chunk.fresh {
			return true
		}
		taken, err := e.mem.TryViewPage(gpa, func(page []byte) { e.base.update(chunk, gpa, page) })
		if !taken && err == nil {
			if missing == nil {
				missing = e.mem.NewPageSet()
			}
			missing.Add(gpa)
		}
		return true
	})
	for chunk := range seen {
		chunk.fresh = false
	}
	if missing != nil {
		pages.Subtract(missing)
	}
	return missing
}

// promote turns the hashes of a chunk into a twin. What changed since the hashes were taken is
// found by hashing the twin, so that the twin is of the bytes that were judged. Preconditions: e.mu held.
func (e *Engine) promote(key uint64, chunk *baselineChunk) {
	sums, ok := e.base.promote(chunk)
	if !ok {
		return
	}
	for i := range uint64(chunkPages) {
		gpa := memory.GPA(key*chunkBytes + i*memory.PageSize)
		if !e.compared.Has(gpa) {
			continue
		}
		e.compare(gpa)
		if sums == nil {
			e.tell(Page{GPA: gpa, Lines: ^uint64(0), Inexact: true})
			continue
		}
		e.tell(Page{GPA: gpa, Lines: e.base.key.UpdateHash(chunk.twinOf(i), &sums[i])})
	}
	baseline.FreeSums(sums)
}

// end forgets the baselines that no armed context needs. Preconditions: e.mu held.
func (e *Engine) end() error {
	e.compared.Clear()
	needed := map[uint64]bool{}
	e.armedDiffs(func(c *Context) {
		c.ranges.addTo(e.compared)
		for _, key := range c.ranges.chunkKeys() {
			needed[key] = true
		}
	})
	for key := range e.base.chunks {
		if !needed[key] {
			e.base.free(key)
		}
	}
	if e.unseen != nil {
		e.unseen.Intersect(e.compared)
		e.compared.Subtract(e.unseen)
	}
	return e.unwatchPages(nil)
}

// Resume starts the tracking that was restored. It is called before the guest runs, and costs it
// nothing: baselines are taken while it runs already. A machine that was just moved must run, so where
// stores cannot be watched, pages are given back. After an error all is as before.
func (e *Engine) Resume() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	var restored []*Context
	for _, c := range e.contexts {
		if c.restored {
			restored = append(restored, c)
		}
	}
	if len(restored) == 0 {
		return nil // this is on the way of every resume of a machine
	}
	if err := e.resume(restored); err != nil {
		for _, c := range restored {
			e.exact.drop(c)
		}
		return errors.Join(fmt.Errorf("go on with tracking: %w", err), e.setAccess(), e.end())
	}
	for _, c := range restored {
		c.restored = false
	}
	return nil
}

// resume arms contexts. Preconditions: e.mu held.
func (e *Engine) resume(restored []*Context) error {
	watching, diffs := e.watching(), e.mem.NewPageSet()
	for _, c := range restored {
		if c.opts.Mode == Diff {
			c.armed = true
			c.ranges.addTo(diffs)
		} else if err := e.exact.enter(c); err != nil {
			return err
		}
	}
	if diffs.Subtract(e.compared); diffs.Len() > 0 {
		if err := e.resumeDiffs(diffs, watching); err != nil {
			return err
		}
	}
	err := e.takeAccess()
	if err != nil {
		err = e.giveBackAll()
	}
	return err
}

// resumeDiffs has the page log running, after which the guest may run, and has baselines taken soon.
// Preconditions: e.mu held.
func (e *Engine) resumeDiffs(pages *memory.PageSet, watching bool) error {
	if !watching {
		if err := e.pages.Start(); err != nil {
			return err
		}
	}
	e.unseen = pages
	go func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.unseen != nil {
			_ = e.see() // after an error the next look tries again, and says it
		}
	}()
	return nil
}

// see takes the baselines of restored contexts, and of pages that have arrived. A page that the guest wrote since it was resumed and
// before its baseline was safe is reported as a whole; one that is missing is left for the next look, and reported
// now if it was written after it had been passed by. Preconditions: e.mu held.
func (e *Engine) see() error {
	data, err := e.mem.DataPages()
	if err != nil {
		return err
	}
	unseen := e.unseen
	e.armedDiffs(func(c *Context) {
		for _, key := range c.ranges.chunkKeys() {
			e.base.reserve(key, c.opts.CountBytes)
		}
	})
	missing := e.takeBaseline(unseen, data)
	e.compared.Union(unseen)
	e.dirty.Clear()
	if err = e.pages.Collect(e.dirty); err == nil {
		e.unseen = missing
	} else if missing != nil {
		unseen.Union(missing)
	}
	e.dirty.Range(func(gpa memory.GPA) bool {
		late := missing != nil && missing.Has(gpa)
		if !late && !e.compared.Has(gpa) {
			return true
		}
		var found Page
		if !late {
			found = e.compare(gpa)
		}
		if late || unseen.Has(gpa) {
			found = Page{GPA: gpa, Lines: ^uint64(0), Inexact: true}
		}
		e.tell(found)
		return true
	})
	return err
}

// Close ends all contexts. The guest must not run any more, or have been given back its RAM.
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.contexts {
		c.armed, c.closed = false, true
	}
	e.contexts, e.unseen = nil, nil
	e.exact.leave()
	return errors.Join(e.setAccess(), e.end())
}
