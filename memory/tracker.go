package memory

import (
	"fmt"
	"slices"
	"sync"
)

// DirtySource is the hypervisor's half of dirty tracking: it knows the stores
// that guest code makes, and none of the VMM's own.
type DirtySource interface {
	// Start begins: every guest store from its return on is reported.
	Start() error
	// Collect adds to into the pages written since the last Collect, and re-arms
	// them before it returns: a copy made after Collect holds every store that
	// the next Collect does not report. On an error into holds every page that
	// was taken, so that nothing is lost.
	Collect(into *PageSet) error
	// Stop ends the reports.
	Stop() error
}

// Peeker is a DirtySource that can say what is dirty and leave it so, for less than to
// re-arm it costs.
type Peeker interface {
	// Peek adds to into the pages written since the last Collect, which the next Collect reports
	// all the same. The guest stands still.
	Peek(into *PageSet) error
}

// Tracker reports the pages of a Guest that change, whoever changes them: the
// guest (by a DirtySource) or this process (by the Guest's accessors). Its
// methods are safe for concurrent use. The order of events that makes it lose
// no store is argued in the package comment.
//
// Several Trackers may be active, each with its own view: a migration and a
// device that tracks lines. They share one source, since a hypervisor has one log, and
// what one of them takes from it waits for the others.
type Tracker struct {
	guest *Guest
	src   DirtySource

	// Guarded by hub.mu.
	active  bool
	pending *PageSet // taken from the source by another Tracker
	waiting bool     // pending is not empty
}

// hub is what the Trackers of a Guest share.
type hub struct {
	mu     sync.Mutex
	src    DirtySource // started while there is an active Tracker
	active []*Tracker
	fresh  *PageSet // scratch, once there were two
}

// Track joins src with the stores that this process makes in g. Nothing is
// tracked before Start.
func (g *Guest) Track(src DirtySource) *Tracker {
	return &Tracker{guest: g, src: src}
}

// Start begins tracking: a page copied after Start differs from the guest's
// only if a later Collect reports it. Beside another active Tracker the first
// Collect may report pages that were written before. It fails with ErrTracking
// when this Tracker is active, or one with another source.
func (t *Tracker) Start() error {
	h := &t.guest.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if t.guest.closed.Load() {
		return ErrClosed
	}
	if t.active || len(h.active) > 0 && h.src != t.src {
		return ErrTracking
	}
	if len(h.active) == 0 {
		// Marks from before are of stores that every copy after Start will hold.
		t.guest.takeDirty(nil)
		if err := t.src.Start(); err != nil {
			return fmt.Errorf("start dirty tracking: %w", err)
		}
		h.src = t.src
	}
	h.active = append(h.active, t)
	t.active, t.pending, t.waiting = true, t.guest.NewPageSet(), false
	return nil
}

// Collect adds to into every page written since the last Collect (or Start) and
// re-arms it. The caller copies the pages after Collect, never before. On an
// error nothing is lost: pages already taken are in into, the others are
// reported by the next Collect.
func (t *Tracker) Collect(into *PageSet) error {
	return t.collect(into, func(into *PageSet) error { return t.src.Collect(into) })
}

// CollectStill is Collect for a guest that stands still and is not meant to run on here: it
// re-arms nothing, which is most of the cost of a Collect. Should the guest run on after all, nothing
// is lost: later calls report its pages once more, until a Collect.
func (t *Tracker) CollectStill(into *PageSet) error {
	src, ok := t.src.(Peeker)
	if !ok {
		return t.Collect(into)
	}
	return t.collect(into, src.Peek)
}

// CollectOwn is Collect for the stores of this process alone; those of the guest wait. After
// CollectStill there are no others.
func (t *Tracker) CollectOwn(into *PageSet) error {
	return t.collect(into, func(*PageSet) error { return nil })
}

// collect adds to into what take says of the guest's stores, and this process's.
func (t *Tracker) collect(into *PageSet, take func(into *PageSet) error) error {
	h := &t.guest.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if t.guest.closed.Load() {
		return ErrClosed
	}
	if !t.active {
		return ErrNotTracking
	}
	if len(h.active) == 1 {
		t.takeWaiting(into)
		return t.guest.takeAll(take, into)
	}
	if h.fresh == nil {
		h.fresh = t.guest.NewPageSet()
	}
	h.fresh.Clear()
	err := t.guest.takeAll(take, h.fresh)
	for _, other := range h.active {
		other.pending.Union(h.fresh)
		other.waiting = true
	}
	t.takeWaiting(into)
	return err
}

// takeWaiting moves to into what others took. Preconditions: hub.mu held.
func (t *Tracker) takeWaiting(into *PageSet) {
	if t.waiting {
		into.Union(t.pending)
		t.pending.Clear()
		t.waiting = false
	}
}

// takeAll takes what both halves know.
func (g *Guest) takeAll(take func(into *PageSet) error, into *PageSet) error {
	if err := take(into); err != nil {
		return fmt.Errorf("collect dirty pages: %w", err)
	}
	g.takeDirty(into)
	return nil
}

// Stop ends tracking. The last Tracker's stops the source; the Guest is then free for
// another source, even when this one fails to stop. Stop of an inactive Tracker does
// nothing.
func (t *Tracker) Stop() error {
	h := &t.guest.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if !t.active {
		return nil
	}
	t.active, t.pending, t.waiting = false, nil, false
	h.active = slices.DeleteFunc(h.active, func(o *Tracker) bool { return o == t })
	if len(h.active) > 0 {
		return nil
	}
	h.src, h.fresh = nil, nil
	if err := t.src.Stop(); err != nil {
		return fmt.Errorf("stop dirty tracking: %w", err)
	}
	return nil
}

// Observe sets who is told the place of each store of this process, or nobody (nil):
// the page marks are too coarse for who tracks lines. fn runs inside the accessor, after the
// bytes are in place and the pages are marked, so it must be quick and must not
// store to guest memory. A store whose accessor is called after Observe has
// returned is told; one that is not told had its bytes in place before.
func (g *Guest) Observe(fn func(gpa GPA, sizeBytes uint64)) {
	if fn == nil {
		g.observer.Store(nil)
		return
	}
	g.observer.Store(&fn)
}

// mark records a store of n > 0 bytes at offset off of a region. It runs after
// the bytes are in place, and its locked OR is unconditional: "skip the bit
// that is set already" would let the bytes wait in the store buffer while the
// bit is collected.
func (g *Guest) mark(region int, off, n uint64) {
	g.markPages(region, off, n)
	if fn := g.observer.Load(); fn != nil {
		(*fn)(g.layout.spans[region].Base+GPA(off), n)
	}
}

func (g *Guest) markPages(region int, off, n uint64) {
	firstWord := g.layout.spans[region].firstWord
	first, last := off/PageSize, (off+n-1)/PageSize
	for w := first / 64; w <= last/64; w++ {
		g.dirty[firstWord+int(w)].Or(pageMask(w, first, last))
	}
}

// takeDirty moves the marks of this process's stores to into, or drops them
// when into is nil.
func (g *Guest) takeDirty(into *PageSet) {
	if into != nil && !into.layout.equal(g.layout) {
		panic("memory: dirty pages collected into a set with different regions")
	}
	for i := range g.dirty {
		if g.dirty[i].Load() == 0 { // most words of a large guest, at no cost to others
			continue
		}
		if bits := g.dirty[i].Swap(0); into != nil {
			into.words[i] |= bits
		}
	}
}
