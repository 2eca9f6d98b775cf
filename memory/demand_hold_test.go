package memory

import (
	"context"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// waiter is a thread that touches a page in a system call.
type waiter struct {
	thread int
	done   chan uint64
}

// wait starts one and returns when it is known to wait for the page.
func (c *vcpu) wait(d *Demand, gpa GPA) *waiter {
	w := &waiter{done: make(chan uint64, 1)}
	started := make(chan int)
	go lockedThread(func() {
		started <- unix.Gettid()
		v, errno := c.load(gpa)
		if errno != 0 {
			v = uint64(errno)
		}
		w.done <- v
	})
	w.thread = <-started
	if at, err := d.Next(context.Background()); err != nil || at != gpa&^(PageSize-1) {
		c.t.Fatalf("waited for %#x, %v", uint64(at), err)
	}
	if !c.g.Waits(w.thread) {
		c.t.Error("the thread is not known to wait")
	}
	return w
}

func TestDemandHold(t *testing.T) {
	g := newTestGuest(t, testRegions)
	d := demandOf(t, g, allPages(g))
	watched := make(chan struct{}, 10)
	g.WatchWaits(func() { watched <- struct{}{} })
	c, c2 := newVCPU(t, g), newVCPU(t, g)
	w := c.wait(d, testHigh)
	g.Hold()
	for _, page := range []GPA{testHigh, testHigh + PageSize} {
		if filled, err := d.Fill(page, fillContent(page)); !filled || err != nil {
			t.Fatal(filled, err)
		}
		if filled, err := d.Fill(page, fillContent(page)); filled || err != nil {
			t.Error("filled twice", err)
		}
	}
	if d.Has(testHigh) || d.Len() != testPages-2 {
		t.Error("what arrived is absent still")
	}
	// A page that nobody waits for is there; another is seen to be waited for.
	if v, errno := c2.load(testHigh + PageSize); v != content(testHigh+PageSize) || errno != 0 {
		t.Error(v, errno)
	}
	w2 := c2.wait(d, testHigh+2*PageSize)
	<-watched
	if seen, err := g.TryViewPage(testHigh, func([]byte) {}); seen || err != nil {
		t.Error("a page that is held back was shown", err)
	}
	if !g.Waits(w.thread) || !g.Waits(w2.thread) || len(w.done) > 0 || !g.Held() {
		t.Error("a thread went on")
	}
	if err := g.Release(); err != nil {
		t.Error(err)
	}
	if v := <-w.done; v != content(testHigh) {
		t.Errorf("%#x", v)
	}
	if g.Waits(w.thread) || g.Held() {
		t.Error("it is known to wait still")
	}
	if _, err := d.Fill(testHigh+2*PageSize, fillContent(testHigh+2*PageSize)); err != nil {
		t.Error(err)
	}
	if v := <-w2.done; v != content(testHigh+2*PageSize) {
		t.Errorf("%#x", v)
	}
	d.fillAll(t)
}

func (d *Demand) fillAll(t testing.TB) {
	t.Helper()
	d.Absent().Range(func(gpa GPA) bool {
		if filled, err := d.Fill(gpa, fillContent(gpa)); !filled || err != nil {
			t.Error(filled, err)
		}
		return true
	})
}

// TestDemandCloseWhileHeld: the end of a Demand does not let go who is held back.
func TestDemandCloseWhileHeld(t *testing.T) {
	g := newTestGuest(t, testRegions)
	d := demandOf(t, g, allPages(g))
	w := newVCPU(t, g).wait(d, 0)
	g.Hold()
	d.fillAll(t)
	<-d.Done()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if !g.Waits(w.thread) || len(w.done) > 0 {
		t.Error("the thread went on")
	}
	if err := g.Release(); err != nil {
		t.Error(err)
	}
	if v := <-w.done; v != content(0) {
		t.Errorf("%#x", v)
	}
	if g.demand.Load() != nil {
		t.Error("the Demand is there still")
	}
	again := demandOf(t, g, g.NewPageSet()) // the Guest is as any other
	if _, err := again.Next(t.Context()); !errors.Is(err, ErrComplete) {
		t.Error(err)
	}
}

func TestDemandCloseMissing(t *testing.T) {
	g := newTestGuest(t, testRegions)
	d := demandOf(t, g, allPages(g))
	w := newVCPU(t, g).wait(d, 0)
	read := make(chan error)
	go func() { read <- g.ReadAt(PageSize, make([]byte, 1)) }()
	if gpa, err := d.Next(t.Context()); gpa != PageSize || err != nil {
		t.Fatal(gpa, err)
	}
	next := make(chan error)
	go func() { _, err := d.Next(t.Context()); next <- err }()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{"a reader": <-read, "Next": <-next, "a later write": g.StoreUint8(7, 1)} {
		if !errors.Is(err, ErrMissing) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := d.Fill(0, func([]byte) error { return nil }); !errors.Is(err, ErrMissing) {
		t.Errorf("a fill: %v", err)
	}
	if v := <-w.done; v != uint64(unix.EFAULT) {
		t.Errorf("the guest went on with %#x", v)
	}
	if g.Missing(0, 8) != nil {
		t.Error("there is something to wait for")
	}
}

// TestGuestCloseWhileMissing: as Close of the Demand, which does nothing after it.
func TestGuestCloseWhileMissing(t *testing.T) {
	g := newTestGuest(t, testRegions)
	d := demandOf(t, g, allPages(g))
	w := newVCPU(t, g).wait(d, 0)
	read := make(chan error)
	go func() { read <- g.ReadAt(PageSize, make([]byte, 1)) }()
	if _, err := d.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-read; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if v := <-w.done; v != uint64(unix.EFAULT) {
		t.Errorf("the guest went on with %#x", v)
	}
	if _, err := d.Fill(0, func([]byte) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

func TestDemandReset(t *testing.T) {
	g := newTestGuest(t, testRegions)
	d := demandOf(t, g, allPages(g))
	w := newVCPU(t, g).wait(d, 0)
	read := make(chan uint64)
	go func() { v, _ := g.LoadUint64(PageSize); read <- v }()
	if _, err := d.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := g.Reset(); err != nil {
		t.Fatal(err)
	}
	if a, b := <-w.done, <-read; a != 0 || b != 0 {
		t.Errorf("%#x and %#x after a reset", a, b)
	}
	if filled, err := d.Fill(0, fillContent(0)); filled || err != nil {
		t.Errorf("late content: %v, %v", filled, err)
	}
	<-d.Done()
	if _, err := d.Next(t.Context()); !errors.Is(err, ErrComplete) {
		t.Error(err)
	}
}

// TestDemandReturned: a thread that a signal got out of its wait does not wait, and what it waited for may come.
func TestDemandReturned(t *testing.T) {
	g := newTestGuest(t, testRegions)
	d := demandOf(t, g, allPages(g))
	w := newVCPU(t, g).wait(d, 0)
	arrives := g.Missing(PageSize-1, 2)
	if arrives == nil {
		t.Fatal("nothing is missing")
	}
	g.Returned(w.thread)
	if g.Waits(w.thread) {
		t.Error("it is known to wait still")
	}
	if _, err := d.Fill(0, func([]byte) error { return nil }); err != nil { // as it is: zero
		t.Error(err)
	}
	<-arrives
	if <-w.done != 0 {
		t.Error("not zero")
	}
	if g.Missing(0, PageSize) != nil || g.Missing(0, PageSize+1) == nil || g.Missing(1<<40, 1) != nil || g.Missing(PageSize, 0) != nil {
		t.Error("what is missing is not what was asked for")
	}
	d.fillAll(t)
	if g.Missing(0, 2*PageSize) != nil {
		t.Error("something is missing still")
	}
}

func TestDemandRefuses(t *testing.T) {
	g := newTestGuest(t, testRegions)
	d := demandOf(t, g, g.NewPageSet())
	if _, err := g.Demand(allPages(g)); !errors.Is(err, ErrDemand) {
		t.Errorf("a second Demand: %v", err)
	}
	no := func([]byte) error { t.Error("called"); return nil }
	for gpa, want := range map[GPA]error{1: ErrMisaligned, 1 << 40: ErrOutOfRange} {
		if _, err := d.Fill(gpa, no); !errors.Is(err, want) {
			t.Errorf("%#x: %v", uint64(gpa), err)
		}
		if d.Has(1 << 40) {
			t.Error("what is not RAM is absent")
		}
		if err := g.EditPage(gpa, no); !errors.Is(err, want) {
			t.Errorf("edit %#x: %v", uint64(gpa), err)
		}
		if _, err := g.TryViewPage(gpa, func([]byte) { t.Error("called") }); !errors.Is(err, want) {
			t.Errorf("view %#x: %v", uint64(gpa), err)
		}
	}
	if err := g.ReadAt(1<<40, nil); err != nil {
		t.Errorf("no bytes: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	if _, err := g.Demand(g.NewPageSet()); !errors.Is(err, ErrClosed) {
		t.Errorf("a Demand of a closed Guest: %v", err)
	}
	pool := &Guest{layout: g.layout, rams: []ram{{backing: backingPool}}}
	if _, err := pool.Demand(g.NewPageSet()); !errors.Is(err, ErrHugePages) {
		t.Errorf("huge pages: %v", err)
	}
}

// TestDemandIsNoStore: what arrives is not reported as written, what is stored after is, and absent pages may hold data.
func TestDemandIsNoStore(t *testing.T) {
	g := newTestGuest(t, testRegions)
	d := demandOf(t, g, allPages(g))
	told := 0
	g.Observe(func(GPA, uint64) { told++ })
	tr, _ := started(t, g)
	data, err := g.DataPages()
	if err != nil || data.Len() != testPages {
		t.Errorf("%d pages of data, %v", data.Len(), err)
	}
	d.fillAll(t)
	dirty := g.NewPageSet()
	if err := tr.Collect(dirty); err != nil {
		t.Fatal(err)
	}
	wantPages(t, "after the arrivals", dirty)
	if told != 0 {
		t.Error("the observer was told of arrivals")
	}
	if err := g.EditPage(testHigh, func(page []byte) error { page[0] = 1; return nil }); err != nil {
		t.Error(err)
	}
	if err := tr.Collect(dirty); err != nil {
		t.Fatal(err)
	}
	wantPages(t, "after a store", dirty, testHigh)
	if told != 1 {
		t.Errorf("the observer was told of %d stores", told)
	}
	if data, err := g.DataPages(); err != nil || data.Len() != testPages {
		t.Errorf("%d pages of data, %v", data.Len(), err)
	}
}

// BenchmarkAccess is what an access costs without a Demand, and beside one.
func BenchmarkAccess(b *testing.B) {
	for _, with := range []string{"no demand", "demand"} {
		b.Run(with, func(b *testing.B) {
			g := newTestGuest(b, testRegions)
			if with == "demand" {
				absent := g.NewPageSet()
				absent.Add(0)
				d := demandOf(b, g, absent)
				defer d.fillAll(b)
			}
			for b.Loop() {
				if _, err := g.LoadUint64(testHigh); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
