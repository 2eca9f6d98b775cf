package memory

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestFillRun: of a run only what is absent is lent, and all of it is seen by the guest; a run may cross regions that touch.
func TestFillRun(t *testing.T) {
	g := newTestGuest(t, []Region{{0, 8 * PageSize}, {8 * PageSize, 8 * PageSize}})
	absent := allPages(g)
	there := g.NewPageSet()
	there.Add(5 * PageSize)
	there.Add(8 * PageSize)
	absent.Subtract(there)
	d := demandOf(t, g, absent)
	vcpu := newVCPU(t, g)
	fill := func(i int, page []byte) error { return fillContent(GPA(i+2) * PageSize)(page) }
	filled, err := d.FillRun(2*PageSize, 10, fill)
	if want := uint64(0b1110110111); err != nil || filled != want {
		t.Fatalf("filled %b of %b, %v", filled, want, err)
	}
	if d.Len() != 6 {
		t.Errorf("%d pages are absent", d.Len())
	}
	for page := GPA(2); page < 12; page++ {
		want := content(page * PageSize)
		if page == 5 || page == 8 {
			want = 0
		}
		if got, err := vcpu.load(page * PageSize); err != 0 || got != want {
			t.Errorf("page %d holds %#x, want %#x, %v", page, got, want, err)
		}
	}
	if filled, err := d.FillRun(2*PageSize, 10, fill); filled != 0 || err != nil {
		t.Errorf("filled %b again, %v", filled, err)
	}
	if _, err := d.FillRun(12*PageSize, 5, fill); !errors.Is(err, ErrOutOfRange) {
		t.Errorf("a run beyond the end: %v", err)
	}
	bad := errors.New("no")
	filled, err = d.FillRun(12*PageSize, 4, func(i int, _ []byte) error {
		if i == 2 {
			return bad
		}
		return nil
	})
	if !errors.Is(err, bad) || filled != 0b11 || d.Len() != 4 || !d.Has(14*PageSize) {
		t.Errorf("filled %b, %d absent, %v", filled, d.Len(), err)
	}
	fillRest(t, d)
}

// TestFillRunHalfWay: what a run has shown before it fails is present, and the guest's; the rest is absent, and can come again.
func TestFillRunHalfWay(t *testing.T) {
	failed := errors.New("failed")
	const first, count, bad = 2, 10, 7 // the run, and the page of it that fails; a region ends at page 8
	for name, tc := range map[string]struct {
		fail  func(g *Guest)
		fn    func(i int) error
		want  error
		shown uint64
	}{
		"behind the end of a region": {
			func(*Guest) {},
			func(i int) error {
				if i == bad {
					return failed
				}
				return nil
			},
			failed, 0b1111111,
		},
		"a page that cannot be shown": {
			func(g *Guest) { hideFrom(t, g, (first+bad)*PageSize) },
			func(int) error { return nil },
			unix.ENOENT, 0b1111111,
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newTestGuest(t, []Region{{0, 8 * PageSize}, {8 * PageSize, 8 * PageSize}})
			d := demandOf(t, g, allPages(g))
			tc.fail(g)
			shown, err := d.FillRun(first*PageSize, count, func(i int, page []byte) error {
				if err := tc.fn(i); err != nil {
					return err
				}
				return fillContent(GPA(first+i) * PageSize)(page)
			})
			if !errors.Is(err, tc.want) || shown != tc.shown {
				t.Fatalf("shown %b, want %b; %v", shown, tc.shown, err)
			}
			vcpu := newVCPU(t, g)
			for i := range count {
				page := GPA(first+i) * PageSize
				here := shown>>i&1 != 0
				if d.Has(page) == here {
					t.Errorf("page %d is absent: %v", first+i, !here)
				}
				if !here {
					continue
				}
				if got, err := vcpu.load(page); err != 0 || got != content(page) {
					t.Errorf("page %d holds %#x, %v", first+i, got, err)
				}
				if errno := vcpu.store(page, 1); errno != 0 {
					t.Error(errno)
				}
			}
			// What is sent again finds what the guest has stored meanwhile.
			again, _ := d.FillRun(first*PageSize, bits.Len64(shown), func(i int, page []byte) error { return fillContent(0)(page) })
			if again != 0 {
				t.Errorf("%b came again", again)
			}
			if got, err := vcpu.load(first * PageSize); err != 0 || got != 1 {
				t.Errorf("the guest's store is %#x, %v", got, err)
			}
		})
	}
}

// TestRunHastens: who waits for a page that a run has brought does not wait for the rest of the run, whether it began before
// the page came or after, in the kernel or in Go.
func TestRunHastens(t *testing.T) {
	g := newTestGuest(t, []Region{{0, 16 * PageSize}})
	d := demandOf(t, g, allPages(g))
	vcpus := []*vcpu{newVCPU(t, g), newVCPU(t, g)}
	early := make(chan error)
	go func() { early <- seen(vcpus[0], 2*PageSize) }()
	if _, err := d.Next(context.Background()); err != nil {
		t.Fatal(err)
	}
	filled, err := d.FillRun(0, 8, func(i int, page []byte) error {
		if i == 7 {
			return errors.Join(<-early, seen(vcpus[1], 4*PageSize), seenInGo(g, 5*PageSize))
		}
		return fillContent(GPA(i) * PageSize)(page)
	})
	if filled != 0xff || err != nil || d.Len() != 8 {
		t.Errorf("filled %b, %d absent, %v", filled, d.Len(), err)
	}
	for page := range GPA(7) {
		if err := seen(vcpus[1], page*PageSize); err != nil {
			t.Error(err)
		}
	}
	fillRest(t, d)
}

// seen has a vCPU load a page's content.
func seen(c *vcpu, gpa GPA) error {
	got, errno := c.load(gpa)
	switch {
	case errno != 0:
		return fmt.Errorf("a vCPU loads the page at %#x: %w", uint64(gpa), errno)
	case got != content(gpa):
		return fmt.Errorf("the page at %#x holds %#x for a vCPU", uint64(gpa), got)
	}
	return nil
}

func seenInGo(g *Guest, gpa GPA) error {
	if got, err := g.LoadUint64(gpa); err != nil || got != content(gpa) {
		return fmt.Errorf("the page at %#x holds %#x, %w", uint64(gpa), got, err)
	}
	return nil
}

// TestFillRunBesideWaiters: runs that overlap, from several goroutines, and around the end of the table of locks.
func TestFillRunBesideWaiters(t *testing.T) {
	const pages = fillLocks + 64
	g := newTestGuest(t, []Region{{0, pages * PageSize}})
	d := demandOf(t, g, allPages(g))
	var all sync.WaitGroup
	for offset := range GPA(4) {
		all.Go(func() {
			for page := 3 * offset; page+MaxFillRun <= pages; page += MaxFillRun - 3 {
				_, err := d.FillRun(page*PageSize, MaxFillRun, func(i int, b []byte) error {
					return fillContent((page + GPA(i)) * PageSize)(b)
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Go(func() { // waits in Go
		for page := GPA(0); page < pages-2*MaxFillRun; page += 7 {
			if v, err := g.LoadUint64(page * PageSize); err != nil || v != content(page*PageSize) {
				t.Errorf("page %d: %#x, %v", page, v, err)
			}
		}
	})
	all.Wait()
	fillRest(t, d)
}

// fillRest leaves nothing absent.
func fillRest(t *testing.T, d *Demand) {
	t.Helper()
	d.Absent().Range(func(gpa GPA) bool {
		if _, err := d.Fill(gpa, fillContent(gpa)); err != nil {
			t.Error(err)
		}
		return true
	})
}

// TestTell: a function that is told gets each page once, those that were waited for before, too, and Next the rest when it is
// told no more.
func TestTell(t *testing.T) {
	g := newTestGuest(t, []Region{{0, 16 * PageSize}})
	d := demandOf(t, g, allPages(g))
	vcpus := make(chan unix.Errno, 3)
	touch := func(page GPA) {
		c := newVCPU(t, g)
		go func() {
			_, err := c.load(page * PageSize)
			vcpus <- err
		}()
	}
	if g.Missing(3*PageSize, 1) == nil {
		t.Fatal("page 3 is not absent")
	}
	told := make(chan GPA, 16)
	d.Tell(func(gpa GPA) { told <- gpa })
	if gpa := <-told; gpa != 3*PageSize {
		t.Errorf("told of %#x first", uint64(gpa))
	}
	touch(5)
	if gpa := <-told; gpa != 5*PageSize {
		t.Errorf("told of %#x", uint64(gpa))
	}
	touch(5)
	touch(7)
	if gpa := <-told; gpa != 7*PageSize {
		t.Errorf("told of %#x", uint64(gpa))
	}
	d.Tell(nil)
	g.Missing(9*PageSize, 1)
	if gpa, err := d.Next(context.Background()); gpa != 9*PageSize || err != nil {
		t.Errorf("Next says %#x, %v", uint64(gpa), err)
	}
	fillRest(t, d)
	for range cap(vcpus) {
		if err := <-vcpus; err != 0 {
			t.Error(err)
		}
	}
}

// TestRunThatFailsBesideWaiters: a page of a run that cannot be shown takes nothing from who waits for another one. What was hastened stays
// the guest's, and what could not be is reported when it is absent again.
func TestRunThatFailsBesideWaiters(t *testing.T) {
	const bad, late, hastened = 2, 3, 4
	g := newTestGuest(t, []Region{{0, 8 * PageSize}})
	d := demandOf(t, g, allPages(g))
	hideFrom(t, g, bad*PageSize)
	c := newVCPU(t, g)
	var arrived <-chan struct{}
	fill := func(i int, page []byte) error { return fillContent(GPA(i) * PageSize)(page) }
	filled, err := d.FillRun(0, 8, func(i int, page []byte) error {
		if i == 7 {
			if err := seen(c, hastened*PageSize); err != nil {
				return err
			}
			if errno := c.store(hastened*PageSize, 1); errno != 0 {
				return errno
			}
			lock := d.lockOf(g.place(late * PageSize)) // so that it cannot be hastened
			lock.Lock()
			arrived = g.Missing(late*PageSize, 1)
			lock.Unlock()
		}
		return fill(i, page)
	})
	if want := uint64(0b10011); filled != want || !errors.Is(err, unix.ENOENT) || d.Len() != 5 || d.Has(hastened*PageSize) {
		t.Fatalf("filled %b, want %b, %d pages are absent, %v", filled, want, d.Len(), err)
	}
	if gpa, ok := d.next(); gpa != late*PageSize || !ok {
		t.Errorf("the next page that is waited for: %#x, %v", uint64(gpa), ok)
	}
	again, err := d.FillRun(late*PageSize, 5, func(i int, page []byte) error { return fill(late+i, page) })
	if again != 0b11101 || err != nil {
		t.Errorf("filled %b again, %v", again, err)
	}
	<-arrived
	if got, errno := c.load(hastened * PageSize); got != 1 || errno != 0 {
		t.Errorf("the guest's store is %#x, %v", got, errno)
	}
}

// TestTakeBackLeavesHastened: a page that was hastened when the run had failed already is the guest's, and not absent again.
func TestTakeBackLeavesHastened(t *testing.T) {
	const bad, hastened = 2, 4
	g := newTestGuest(t, []Region{{0, 8 * PageSize}})
	d := demandOf(t, g, allPages(g))
	hideFrom(t, g, bad*PageSize)
	for i := range GPA(8) {
		if fresh, err := d.bring(g.place(i*PageSize), int(i), func(int, []byte) error { return nil }); !fresh || err != nil {
			t.Fatal(fresh, err)
		}
	}
	shown, err := d.deliver(g.place(0), 0xff)
	if shown != 0b11 || !errors.Is(err, unix.ENOENT) {
		t.Fatalf("shown %b, %v", shown, err)
	}
	<-g.Missing(hastened*PageSize, 1)
	if late := d.takeBack(g.place(0), 0xff&^shown); late != 1<<hastened || d.Has(hastened*PageSize) || !d.Has((hastened+1)*PageSize) {
		t.Errorf("shown meanwhile: %b", late)
	}
}

// TestCloseAwaitsTold: whoever has closed a Demand with pages missing is told of none any more.
func TestCloseAwaitsTold(t *testing.T) {
	g := newTestGuest(t, []Region{{0, 8 * PageSize}})
	d := demandOf(t, g, allPages(g))
	release, told := make(chan struct{}), make(chan error, 1)
	d.Tell(func(gpa GPA) {
		<-release
		_, err := d.Fill(gpa, fillContent(gpa))
		told <- err
	})
	loaded, closed := make(chan unix.Errno, 1), make(chan struct{})
	c := newVCPU(t, g)
	go func() {
		_, errno := c.load(0)
		loaded <- errno
	}()
	for d.wanted[0].Load() == 0 { // the goroutine that reads faults goes on to tell
		runtime.Gosched()
	}
	go func() {
		defer close(closed)
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	<-d.ended
	select {
	case <-closed:
		t.Error("Close has returned")
	case <-time.After(50 * time.Millisecond): // in which one that does not wait returns
	}
	close(release)
	if err := <-told; !errors.Is(err, ErrMissing) {
		t.Errorf("a late page: %v", err)
	}
	<-closed
	if errno := <-loaded; errno != unix.EFAULT {
		t.Errorf("the guest goes on with %v", errno)
	}
}
