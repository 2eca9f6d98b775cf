package memory

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"sync"
	"sync/atomic"
)

// Demand serves the missing pages of a Guest: a vCPU that touches one waits in the kernel, an accessor of the
// Guest waits in Go, Next or Tell says what is waited for, and Fill brings it. Its methods are safe for concurrent use.
// The package comment says how, and what dirty tracking sees of it.
type Demand struct {
	g      *Guest
	faults *userfaults
	served chan struct{} // closed when the goroutine that reads faults has ended

	// Bitmaps like Guest.dirty. A page is absent until its content is there, and hidden until the guest may
	// see it; wanted once somebody waited for it. absent is within hidden.
	absent, hidden, wanted pageBits
	missing                atomic.Int64 // pages in absent
	done                   chan struct{}

	// fills is held for reading by Fills and Lends, for writing by what ends the Demand. Before filling.
	fills sync.RWMutex
	// filling has a lock for every 256th page: of the Fills and Lends of one page one runs at a time. Before gate.
	filling [fillLocks]sync.Mutex
	// gate is held for reading while a page is shown, for writing to hold pages back. Before mu.
	gate       sync.RWMutex
	mu         sync.Mutex
	held       bool               // guarded by gate and mu: it is changed with both
	closeLater bool               // likewise
	arrived    []place            // filled while held, and still hidden
	released   chan struct{}      // closed by Release; made by Hold
	threads    map[int]place      // those of this process that wait, by number
	parts      map[int]struct{}   // of them, those in AwaitPart
	waiters    map[place]*waiting // accessors
	queue      []GPA              // wanted and not reported
	brought    []place            // wanted when they were in a run that was being filled, and not shown yet
	ready      chan struct{}      // capacity 1: the queue is not empty, and Next is to look
	err        error              // why it has ended; nil: it has not. Written with fills held, too
	ended      chan struct{}

	// telling is held for reading while told is called, which may Fill. Before all others.
	telling sync.RWMutex
	told    func(GPA) // see Tell; nil: Next is asked
}

// waiting is what the accessors that wait for one page share.
type waiting struct{ done chan struct{} }

// place is where a page's bit is.
type place struct {
	gpa    GPA
	region int
	off    uint64 // in the region, bytes
	word   int
	mask   uint64
}

// pageBits is a bitmap, placed as in a PageSet.
type pageBits []atomic.Uint64

func (b pageBits) has(p place) bool { return b[p.word].Load()&p.mask != 0 }
func (b pageBits) clear(p place)    { b[p.word].And(^p.mask) }

// set reports whether the bit was clear.
func (b pageBits) set(p place) bool { return b[p.word].Or(p.mask)&p.mask == 0 }

// place returns the place of the page that holds a RAM address.
func (g *Guest) place(gpa GPA) place {
	region, off, _ := g.piece(gpa, 1)
	off &^= PageSize - 1
	return g.placeAt(region, off)
}

func (g *Guest) placeAt(region int, off uint64) place {
	s := &g.layout.spans[region]
	page := off / PageSize
	return place{s.Base + GPA(off), region, off, s.firstWord + int(page/64), 1 << (page % 64)}
}

// Demand makes pages missing until Fill has brought each. What an absent page holds already is kept, for Fill to
// build upon. The guest must not run and nothing may access the pages while Demand is called; the vCPUs' state is best restored
// before, since KVM may read memory for it. Errors wrap ErrNoUserfaults, ErrDemand if there is one already, ErrHugePages for a
// Guest in huge pages of the host's pool, or ErrClosed. The caller closes the Demand.
func (g *Guest) Demand(absent *PageSet) (_ *Demand, err error) {
	if !absent.layout.equal(g.layout) {
		panic("memory: absent pages of a Guest with different regions")
	}
	g.mu.RLock() // the mappings stay
	defer g.mu.RUnlock()
	switch {
	case g.closed.Load():
		return nil, ErrClosed
	case g.demand.Load() != nil:
		return nil, ErrDemand
	case g.rams[0].backing == backingPool:
		// The kernel can only map such a page as a whole: each fault would wait for 512 of our pages.
		return nil, fmt.Errorf("%w: they come in pieces of 2 MiB, for each of which the guest would stand still", ErrHugePages)
	}
	d := newDemand(g, absent)
	if d.faults, err = openUserfaults(); err != nil {
		return nil, err
	}
	if !g.demand.CompareAndSwap(nil, d) {
		return nil, errors.Join(ErrDemand, d.faults.close())
	}
	if err := d.register(); err != nil {
		g.demand.Store(nil)
		return nil, errors.Join(err, d.faults.close())
	}
	go d.serve()
	return d, nil
}

func newDemand(g *Guest, absent *PageSet) *Demand {
	d := &Demand{
		g: g, served: make(chan struct{}), done: make(chan struct{}),
		absent: make(pageBits, len(absent.words)), hidden: make(pageBits, len(absent.words)), wanted: make(pageBits, len(absent.words)),
		threads: map[int]place{}, parts: map[int]struct{}{}, waiters: map[place]*waiting{},
		ready: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	for i, w := range absent.words {
		d.absent[i].Store(w)
		d.hidden[i].Store(w)
		d.missing.Add(int64(bits.OnesCount64(w)))
	}
	if d.missing.Load() == 0 {
		close(d.done)
	}
	return d
}

const (
	// demandChunkBytes is the unit of registration. Where a page of a chunk is absent, all first
	// uses of its pages come to us.
	demandChunkBytes = 2 << 20
	// maxDemandRanges bounds the mappings that the kernel splits a region into (vm.max_map_count is 65530).
	maxDemandRanges = 1024
)

// register has the kernel report first uses, and takes away what the guest has mapped already.
func (d *Demand) register() error {
	for i := range d.g.rams {
		m := &d.g.rams[i]
		ranges := d.chunksOf(i)
		if len(ranges) > maxDemandRanges {
			ranges = []uffdRange{{0, m.sizeBytes}}
		}
		for _, r := range ranges {
			err := d.faults.register(m.guestAddr()+uintptr(r.start), r.size)
			if err == nil {
				err = m.forget(r.start, r.size)
			}
			if err != nil {
				return fmt.Errorf("register missing guest memory: %w", err)
			}
		}
	}
	return nil
}

// chunksOf returns the chunks of a region that have an absent page, joined where they meet.
func (d *Demand) chunksOf(region int) (ranges []uffdRange) {
	const words = demandChunkBytes / PageSize / 64
	s := &d.g.layout.spans[region]
	for first := 0; first < s.words(); first += words {
		any := false
		for w := first; w < min(first+words, s.words()); w++ {
			any = any || d.hidden[s.firstWord+w].Load() != 0
		}
		start := uint64(first) * 64 * PageSize
		size := min(demandChunkBytes, s.SizeBytes-start)
		switch n := len(ranges); {
		case !any:
		case n > 0 && ranges[n-1].start+ranges[n-1].size == start:
			ranges[n-1].size += size
		default:
			ranges = append(ranges, uffdRange{start, size})
		}
	}
	return ranges
}

// Fill brings a page: if it is absent, fn is lent it for writing, with what it holds now, and then it is
// made present and who waits for it goes on. False: it was not absent, and fn was not called. Of two Fills of one
// page one wins. After an error of fn, which Fill returns, the page is absent still, with what fn has written.
// A Fill is no store: no Tracker reports it.
func (d *Demand) Fill(gpa GPA, fn func(page []byte) error) (bool, error) {
	filled, err := d.FillRun(gpa, 1, func(_ int, page []byte) error { return fn(page) })
	return filled != 0, err
}

// admit checks the addresses of pages in a row.
func (d *Demand) admit(gpa GPA, count int) (place, error) {
	if gpa%PageSize != 0 {
		return place{}, fmt.Errorf("%w: page at %#x", ErrMisaligned, uint64(gpa))
	}
	if !d.g.layout.contains(gpa, uint64(count)*PageSize) {
		return place{}, fmt.Errorf("%w: page at %#x", ErrOutOfRange, uint64(gpa))
	}
	return d.g.place(gpa), nil
}

// show maps a page for the guest. Who begins to wait sets wanted and looks at hidden after; here it is the other
// way around, so that one of the two sees the other.
func (d *Demand) show(p place) error {
	m := &d.g.rams[p.region]
	m.touch(p.off) // a hole that Fill has left cannot be mapped
	addr := m.guestAddr() + uintptr(p.off)
	if _, err := d.faults.mapPages(addr, PageSize); errors.Is(err, os.ErrExist) {
		err = d.faults.wake(addr, PageSize)
		if err != nil {
			return err
		}
	} else if err != nil {
		return fmt.Errorf("show the guest its page at %#x: %w", uint64(p.gpa), err)
	}
	d.hidden.clear(p)
	return nil
}

// letGo ends the waiting for a page that is shown. Preconditions: mu held.
func (d *Demand) letGo(p place) {
	for thread, at := range d.threads {
		if at == p {
			delete(d.threads, thread)
		}
	}
	if w := d.waiters[p]; w != nil {
		close(w.done)
		delete(d.waiters, p)
	}
}

// Has reports whether the page that holds gpa is absent.
func (d *Demand) Has(gpa GPA) bool {
	return d.g.layout.contains(gpa, 1) && d.absent.has(d.g.place(gpa))
}

// Len returns how many pages are absent.
func (d *Demand) Len() uint64 { return uint64(max(0, d.missing.Load())) }

// Done is closed when no page is absent any more.
func (d *Demand) Done() <-chan struct{} { return d.done }

// Absent returns the pages that are absent now.
func (d *Demand) Absent() *PageSet { return d.absent.snapshot(d.g) }

func (b pageBits) snapshot(g *Guest) *PageSet {
	s := g.NewPageSet()
	for i := range b {
		s.words[i] = b[i].Load()
	}
	return s
}

// Close ends the Demand. When nothing is absent the Guest is as any other then; while pages are held back that
// comes with their Release. When pages are absent, memory is lost: who waits in Go gets ErrMissing, as does every later
// access to them, and the guest mapping is taken away, so that a vCPU that waits comes out of KVM_RUN with EFAULT and none
// runs on with wrong memory. A second Close does nothing.
func (d *Demand) Close() error {
	return d.close(func() error {
		if d.missing.Load() > 0 {
			return d.fail(ErrMissing)
		}
		return d.finish()
	})
}

// Abandon ends the Demand of a Guest, if there is one, as its Close does when pages are missing. The vCPUs must have been
// kicked. It is for a machine that is about to be closed.
func (g *Guest) Abandon() error {
	d := g.demand.Load()
	if d == nil {
		return nil
	}
	return d.close(func() error { return d.fail(ErrClosed) })
}

// close has how end the Demand while no Fill is under way.
func (d *Demand) close(how func() error) error {
	d.fills.Lock()
	err := how()
	d.fills.Unlock()
	if d.failure() != nil {
		<-d.served // which may be about to Fill
	}
	return err
}

// finish ends a Demand that is complete.
func (d *Demand) finish() error {
	d.gate.Lock()
	defer d.gate.Unlock()
	if d.failure() != nil {
		return nil
	}
	if d.held && (len(d.arrived) > 0 || d.partsWait()) {
		d.closeLater = true
		return nil
	}
	d.end(errDemandOver)
	d.g.demand.CompareAndSwap(d, nil)
	return d.faults.close()
}

func (d *Demand) partsWait() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.parts) > 0
}

// fail ends a Demand that is not complete.
func (d *Demand) fail(why error) error {
	d.gate.Lock()
	defer d.gate.Unlock()
	if d.failure() != nil {
		return nil
	}
	var errs []error
	for i := range d.g.rams { // before who waits is woken
		errs = append(errs, d.g.rams[i].forbid())
	}
	d.end(why)
	return errors.Join(append(errs, d.faults.close())...)
}

// end has nobody wait in Go any more.
func (d *Demand) end(why error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = why
	if d.held {
		close(d.released)
	}
	for p, w := range d.waiters {
		close(w.done)
		delete(d.waiters, p)
	}
	clear(d.threads)
	close(d.ended)
}

// failure says why the Demand has ended, or nil.
func (d *Demand) failure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// reset is called with no Fill under way, when all of RAM was made a hole: nothing is absent any more.
func (d *Demand) reset() error {
	d.gate.Lock()
	defer d.gate.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.hidden {
		d.hidden[i].Store(0)
		d.absent[i].Store(0)
	}
	if d.missing.Swap(0) > 0 {
		close(d.done)
	}
	d.arrived, d.queue, d.brought = nil, nil, nil
	return d.letAllGo()
}

// letAllGo has every thread that waits try again. Preconditions: gate and mu held, no hidden page is waited for.
func (d *Demand) letAllGo() error {
	var errs []error
	for thread, p := range d.threads {
		errs = append(errs, d.faults.wake(d.g.rams[p.region].guestAddr()+uintptr(p.off), PageSize))
		delete(d.threads, thread)
	}
	for p := range d.waiters {
		d.letGo(p)
	}
	return errors.Join(errs...)
}
