package memory

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Next returns the next absent page that somebody waits for, each once. It returns the context's error, ErrComplete when
// no page is absent any more, or why the Demand has ended.
func (d *Demand) Next(ctx context.Context) (GPA, error) {
	for {
		select {
		case <-d.ready:
			if gpa, ok := d.next(); ok {
				return gpa, nil
			}
		case <-d.done:
			return 0, ErrComplete
		case <-d.ended:
			return 0, d.failure()
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// next is pop for Next, unless a function is told.
func (d *Demand) next() (GPA, bool) {
	d.telling.RLock()
	defer d.telling.RUnlock()
	if d.told != nil {
		return 0, false
	}
	gpa, ok := d.pop()
	if ok {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.tell() // another caller of Next, if there is more
	}
	return gpa, ok
}

func (d *Demand) pop() (GPA, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for len(d.queue) > 0 {
		gpa := d.queue[0]
		d.queue = d.queue[1:]
		if d.absent.has(d.g.place(gpa)) {
			return gpa, true
		}
	}
	return 0, false
}

// tell has Next look. Preconditions: mu held.
func (d *Demand) tell() {
	if len(d.queue) == 0 {
		return
	}
	select {
	case d.ready <- struct{}{}:
	default:
	}
}

// Tell has fn called for each absent page that somebody waits for, each once, in place of Next, which then only learns of
// the end. Pages that are waited for already come first. fn is called in the goroutine that has learned of the wait, which
// saves a hand-over between goroutines; so it is quick, may Fill, does not wait for pages, does not call Tell, and may be called by
// several at a time. With nil Next reports again; no call of the last fn is under way when Tell returns.
func (d *Demand) Tell(fn func(GPA)) {
	d.telling.Lock()
	d.told = fn
	d.telling.Unlock()
	d.report()
}

// report shows what is there, and passes on what is queued, in this goroutine if there is a function to call.
func (d *Demand) report() {
	d.mu.Lock()
	brought := d.brought
	d.brought = nil
	d.mu.Unlock()
	for _, p := range brought {
		d.hasten(p)
	}
	d.telling.RLock()
	defer d.telling.RUnlock()
	if d.told == nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.tell()
		return
	}
	for {
		gpa, ok := d.pop()
		if !ok {
			return
		}
		d.told(gpa)
	}
}

// serve reads faults until the Demand ends.
func (d *Demand) serve() {
	defer close(d.served)
	messages := make([]uffdMessage, 64)
	for {
		var present []place
		var watch func()
		news := false
		// Read and noted under one lock: who takes it after its thread has left a wait finds no note of it (see Returned).
		err := d.faults.faults(func(read func([]uffdMessage) int) {
			d.mu.Lock()
			defer d.mu.Unlock()
			for _, m := range messages[:read(messages)] {
				p, ok := d.placeOf(m)
				if !ok {
					continue
				}
				before, noted := d.threads[int(m.thread)]
				news = news || !noted || before != p
				if !d.note(p, int(m.thread)) {
					present = append(present, p)
				}
			}
			watch = d.watcher()
		})
		if err != nil {
			return // closed
		}
		d.report()
		for _, p := range present {
			d.present(p)
		}
		switch {
		case watch == nil:
		case news:
			watch()
		default:
			// Held back, a thread with a signal pending faults over and over; so do not we.
			time.Sleep(time.Millisecond)
		}
	}
}

func (d *Demand) placeOf(m uffdMessage) (place, bool) {
	if m.event != uffdEventPagefault {
		return place{}, false
	}
	for i := range d.g.rams {
		r := &d.g.rams[i]
		if off := m.address - uint64(r.guestAddr()); off < r.sizeBytes {
			return d.g.placeAt(i, off&^(PageSize-1)), true
		}
	}
	return place{}, false
}

// note says that a thread of this process (0: no thread to speak of) waits for a page, and reports whether it must. The
// caller calls report when it has let go of mu. Preconditions: mu held.
func (d *Demand) note(p place, thread int) bool {
	fresh := d.wanted.set(p)
	if !d.hidden.has(p) { // after wanted was set, see show
		return false
	}
	if thread != 0 {
		d.threads[thread] = p
	}
	switch {
	case !fresh:
	case d.absent.has(p):
		d.queue = append(d.queue, p.gpa)
	default:
		d.brought = append(d.brought, p)
	}
	return true
}

// watcher returns whom to tell of new waits, or nil. Preconditions: mu held.
func (d *Demand) watcher() func() {
	if fn := d.g.waitWatcher.Load(); fn != nil && d.held {
		return *fn
	}
	return nil
}

// aroundHole is how many pages are made of a hole that the guest touches, if they are holes, too: enough to save faults,
// and few to spend on a guest that needs one.
const aroundHole = 16

// present serves the first use of a page that is not absent: the kernel reports these too, since it knows only
// ranges. What it finds beside the page comes with it, up to the chunk's ends or to what is there already: one system call either way.
func (d *Demand) present(p place) {
	m := &d.g.rams[p.region]
	chunk := p.off &^ (demandChunkBytes - 1)
	first, end := p.off, p.off+PageSize
	for first > chunk && !d.hidden.has(d.g.placeAt(p.region, first-PageSize)) {
		first -= PageSize
	}
	for end < min(chunk+demandChunkBytes, m.sizeBytes) && !d.hidden.has(d.g.placeAt(p.region, end)) {
		end += PageSize
	}
	for off := p.off; off < min(end, p.off+aroundHole*PageSize); off += PageSize {
		m.touch(off)
	}
	_, err := d.faults.mapPages(m.guestAddr()+uintptr(p.off), end-p.off)
	if errors.Is(err, os.ErrExist) { // another fault on it was first
		_ = d.faults.wake(m.guestAddr()+uintptr(p.off), PageSize) // fails when the Demand has ended, which wakes, too
	}
	if first < p.off {
		_, _ = d.faults.mapPages(m.guestAddr()+uintptr(first), p.off-first) // for speed only
	}
}

// await returns when all of an admitted range is there.
func (d *Demand) await(gpa GPA, n int) error {
	for at := gpa &^ (PageSize - 1); at < gpa+GPA(n); at += PageSize {
		p := d.g.place(at)
		for d.hidden.has(p) {
			arrived, err := d.want(p, unix.Gettid())
			if err != nil {
				return err
			}
			if arrived != nil {
				<-arrived
			}
		}
	}
	return nil
}

// want asks for a page on behalf of a thread, and returns what is closed when it is worth looking again; nil: at once.
func (d *Demand) want(p place, thread int) (<-chan struct{}, error) {
	d.mu.Lock()
	if d.err != nil {
		d.mu.Unlock()
		return nil, d.err
	}
	if !d.note(p, thread) {
		d.mu.Unlock()
		return nil, nil
	}
	w := d.waiters[p]
	if w == nil {
		w = &waiting{make(chan struct{})}
		d.waiters[p] = w
	}
	watch := d.watcher()
	d.mu.Unlock()
	d.report()
	if watch != nil {
		watch()
	}
	return w.done, nil
}

// Missing asks for the first page of a range that is not there and returns what is closed when it is worth asking again,
// or nil when all of the range is there, is not RAM, or will never come (the access then says so). It is for who
// must not be found waiting inside an accessor.
func (g *Guest) Missing(gpa GPA, n uint64) <-chan struct{} {
	d := g.demand.Load()
	if d == nil || n == 0 || !g.layout.contains(gpa, n) {
		return nil
	}
	for at := gpa &^ (PageSize - 1); at < gpa+GPA(n); at += PageSize {
		p := g.place(at)
		if !d.hidden.has(p) {
			continue
		}
		if arrived, err := d.want(p, 0); arrived != nil || err != nil {
			return arrived
		}
	}
	return nil
}

// HasDemand reports whether there is a Demand: pages may be missing, or held back.
func (g *Guest) HasDemand() bool { return g.demand.Load() != nil }

// Absent returns how many pages are missing; see Demand.
func (g *Guest) Absent() uint64 {
	if d := g.demand.Load(); d != nil {
		return d.Len()
	}
	return 0
}

// Hold has every thread that waits for a page go on waiting, though the page may arrive, until Release. Without a Demand it
// does nothing. It is how a machine is paused whose vCPUs cannot be interrupted: see Waits.
func (g *Guest) Hold() {
	d := g.demand.Load()
	if d == nil {
		return
	}
	d.gate.Lock()
	defer d.gate.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil && !d.held {
		d.held, d.released = true, make(chan struct{})
	}
}

// Held reports whether it is between Hold and Release.
func (g *Guest) Held() bool {
	d := g.demand.Load()
	if d == nil {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.held
}

// Release ends a Hold: what arrived meanwhile is shown.
func (g *Guest) Release() error {
	d := g.demand.Load()
	if d == nil {
		return nil
	}
	later, err := d.release()
	if later {
		err = errors.Join(err, d.Close())
	}
	return err
}

func (d *Demand) release() (closeLater bool, _ error) {
	d.gate.Lock()
	defer d.gate.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.held {
		return false, nil
	}
	d.held = false
	if d.err == nil {
		close(d.released)
	}
	arrived := d.arrived
	d.arrived = nil
	var errs []error
	for _, p := range arrived {
		if err := d.show(p); err != nil {
			errs = append(errs, err)
			continue
		}
		d.letGo(p)
	}
	return d.closeLater, errors.Join(errs...)
}

// Waits reports whether a thread of this process, by its number in the system, waits for a page, in KVM_RUN or in an
// accessor. Between Hold and Release it stays so, unless a signal gets the thread out of KVM_RUN.
func (g *Guest) Waits(thread int) bool {
	d := g.demand.Load()
	if d == nil {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.threads[thread]
	return ok
}

// Returned says that a thread has come out of KVM_RUN, where a signal may have ended its wait: it does not wait any more.
func (g *Guest) Returned(thread int) {
	if d := g.demand.Load(); d != nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.threads, thread)
	}
}

// WatchWaits sets who is called when, between Hold and Release, a thread has begun to wait. fn must be quick.
func (g *Guest) WatchWaits(fn func()) { g.waitWatcher.Store(&fn) }
