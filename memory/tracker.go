package memory

import (
	"fmt"
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

// Tracker reports the pages of a Guest that change, whoever changes them: the
// guest (by a DirtySource) or this process (by the Guest's accessors). Its
// methods are safe for concurrent use. The order of events that makes it lose
// no store is argued in the package comment.
type Tracker struct {
	guest *Guest
	src   DirtySource

	mu     sync.Mutex
	active bool
}

// Track joins src with the stores that this process makes in g. Nothing is
// tracked before Start.
func (g *Guest) Track(src DirtySource) *Tracker {
	return &Tracker{guest: g, src: src}
}

// Start begins tracking: a page copied after Start differs from the guest's
// only if a later Collect reports it. It fails with ErrTracking while any
// Tracker of the Guest is active, this one included.
func (t *Tracker) Start() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.guest.closed.Load() {
		return ErrClosed
	}
	if !t.guest.tracking.CompareAndSwap(false, true) {
		return ErrTracking
	}
	// Marks from before are of stores that every copy after Start will hold.
	t.guest.takeDirty(nil)
	if err := t.src.Start(); err != nil {
		t.guest.tracking.Store(false)
		return fmt.Errorf("start dirty tracking: %w", err)
	}
	t.active = true
	return nil
}

// Collect adds to into every page written since the last Collect (or Start) and
// re-arms it. The caller copies the pages after Collect, never before. On an
// error nothing is lost: pages already taken are in into, the others are
// reported by the next Collect.
func (t *Tracker) Collect(into *PageSet) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.guest.closed.Load() {
		return ErrClosed
	}
	if !t.active {
		return ErrNotTracking
	}
	if err := t.src.Collect(into); err != nil {
		return fmt.Errorf("collect dirty pages: %w", err)
	}
	t.guest.takeDirty(into)
	return nil
}

// Stop ends tracking; the Guest is then free for another Tracker, even when
// the source fails to stop. Stop of an inactive Tracker does nothing.
func (t *Tracker) Stop() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.active {
		return nil
	}
	t.active = false
	err := t.src.Stop()
	t.guest.tracking.Store(false)
	if err != nil {
		return fmt.Errorf("stop dirty tracking: %w", err)
	}
	return nil
}

// mark records a store of n > 0 bytes at offset off of a region. It runs after
// the bytes are in place, and its locked OR is unconditional: "skip the bit
// that is set already" would let the bytes wait in the store buffer while the
// bit is collected.
func (g *Guest) mark(region int, off, n uint64) {
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
