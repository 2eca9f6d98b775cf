package memory

import (
	"errors"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDemandLend: a part of an absent page is kept until the page is filled, a store of it is reported, an arrival is not.
func TestDemandLend(t *testing.T) {
	g := newTestGuest(t, testRegions)
	d := demandOf(t, g, allPages(g))
	tracker := g.Track(newFakeGuest(g))
	if err := tracker.Start(); err != nil {
		t.Fatal(err)
	}
	write := func(gpa GPA, store bool) {
		if lent, err := d.Lend(gpa, store, func(page []byte) { page[7] = 42 }); !lent || err != nil {
			t.Fatal(lent, err)
		}
	}
	write(testHigh, true)
	write(testHigh+PageSize, false)
	if !d.Has(testHigh) {
		t.Error("a page that was lent is there")
	}
	dirty := g.NewPageSet()
	if err := tracker.Collect(dirty); err != nil || dirty.Len() != 1 || !dirty.Has(testHigh) {
		t.Errorf("%d pages are dirty, %v", dirty.Len(), err)
	}
	d.fillAll(t)
	if lent, err := d.Lend(testHigh, true, func([]byte) { t.Error("it is there") }); lent || err != nil {
		t.Error(lent, err)
	}
	if _, err := d.Lend(testHigh+1, false, nil); !errors.Is(err, ErrMisaligned) {
		t.Error(err)
	}
	if _, err := d.Lend(testHigh-PageSize, false, nil); !errors.Is(err, ErrOutOfRange) {
		t.Error(err)
	}
}

// TestDemandAwaitPart: who waits for a part is known to wait; held back he goes on with the Release, whether his part has come, all of
// the page, or all of memory and the end of the Demand.
func TestDemandAwaitPart(t *testing.T) {
	for _, what := range []string{"part", "page", "all"} {
		g := newTestGuest(t, testRegions)
		d := demandOf(t, g, allPages(g))
		waits := make(chan struct{}, 10)
		g.WatchWaits(func() { waits <- struct{}{} })
		thread, done, arrived := make(chan int, 1), make(chan error, 1), make(chan struct{})
		go func() {
			runtime.LockOSThread()
			thread <- unix.Gettid()
			done <- d.AwaitPart(testHigh+64, arrived)
		}()
		id := <-thread
		g.Hold()
		for !g.Waits(id) {
			runtime.Gosched()
		}
		switch what {
		case "page":
			if _, err := d.Fill(testHigh, fillContent(testHigh)); err != nil {
				t.Fatal(err)
			}
		case "all":
			d.fillAll(t)
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		}
		close(arrived)
		<-waits // as it says when it finds that it may not go on
		if !g.Waits(id) || len(done) > 0 {
			t.Errorf("%s: it went on", what)
		}
		if err := g.Release(); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if g.Waits(id) {
			t.Errorf("%s: it is known to wait still", what)
		}
		if what != "all" {
			d.fillAll(t)
		}
	}
}

// TestDemandAwaitPartLost: memory that is lost ends the wait with an error.
func TestDemandAwaitPartLost(t *testing.T) {
	g := newTestGuest(t, testRegions)
	d := demandOf(t, g, allPages(g))
	done := make(chan error, 1)
	go func() { done <- d.AwaitPart(0, make(chan struct{})) }()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, ErrMissing) {
		t.Error(err)
	}
}
