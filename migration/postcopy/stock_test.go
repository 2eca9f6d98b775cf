package postcopy

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// frameOf returns the payload of a frame of zero pages.
func frameOf(t *testing.T, first uint64, count int) []byte {
	t.Helper()
	b := wire.NewBatch(wire.MinBatchBytes)
	for i := range uint64(count) {
		b.AppendZero(first + i)
	}
	b.Seal()
	var stream bytes.Buffer
	if err := wire.NewWriter(&stream).Batch(b); err != nil {
		t.Fatal(err)
	}
	f, err := wire.NewReader(&stream).Next(wire.Of(wire.TypePages))
	if err != nil {
		t.Fatal(err)
	}
	return f.Payload
}

// TestStock: a frame is found until it is in place, is taken from near the last miss on and around the end, and there is an end.
func TestStock(t *testing.T) {
	s := newStock(context.Background())
	for _, first := range []uint64{100, 300, 200} {
		if err := s.add(frameOf(t, first, 10), first, first+9, 10); err != nil {
			t.Fatal(err)
		}
	}
	s.close()
	for _, want := range []uint64{200, 300, 100} {
		c, err := s.take(209)
		if err != nil || c == nil || c.first != want {
			t.Fatalf("took %+v, %v, want the frame from page %d", c, err, want)
		}
		for _, page := range []uint64{want, want + 9} {
			calls := 0
			found, err := s.find(page, func(arrival) error { calls++; return errors.ErrUnsupported })
			if !found || !errors.Is(err, errors.ErrUnsupported) || calls != 1 {
				t.Errorf("page %d: found %v by %d calls, %v", page, found, calls, err)
			}
		}
		s.done(c)
		if found, err := s.find(want, func(arrival) error { return nil }); found || err != nil {
			t.Errorf("page %d is found when it is in place, %v", want, err)
		}
	}
	if c, err := s.take(0); c != nil || err != nil || s.sizeBytes != 0 {
		t.Errorf("at the end %+v, %v, %d bytes", c, err, s.sizeBytes)
	}
}

// TestStockIsBounded: what is beyond a bound waits for room, or for the end of the run.
func TestStockIsBounded(t *testing.T) {
	small := []byte("page")
	for name, tc := range map[string]struct {
		payload []byte
		pages   int
		fit     int // frames
	}{
		"bytes":  {make([]byte, stockBytes/4), 1, 4},
		"pages":  {small, stockPages / 8, 8},
		"frames": {small, 1, stockFrames},
		"alone":  {make([]byte, 2*stockBytes), 2 * stockPages, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(context.Background())
				s := newStock(ctx)
				added := make(chan error, tc.fit)
				add := func(n int) {
					for range n {
						added <- s.add(tc.payload, 0, 1, tc.pages)
					}
				}
				want := func(n int, want error) {
					t.Helper()
					synctest.Wait() // until add is done or waits
					if len(added) != n {
						t.Fatalf("%d frames were added, want %d", len(added), n)
					}
					for range n {
						if err := <-added; !errors.Is(err, want) {
							t.Error(err)
						}
					}
				}
				go add(tc.fit)
				want(tc.fit, nil)
				go add(2)
				want(0, nil)
				c, err := s.take(0)
				if err != nil {
					t.Fatal(err)
				}
				s.done(c)
				want(1, nil)
				over := errors.New("over")
				cancel(over)
				want(1, over)
				if _, err := s.take(0); !errors.Is(err, over) {
					t.Errorf("taken after the end: %v", err)
				}
			})
		})
	}
}

// TestStockKeepsNoLargeBuffers: small frames among large ones do not hold the buffers of those.
func TestStockKeepsNoLargeBuffers(t *testing.T) {
	s := newStock(context.Background())
	for i := range uint64(100) {
		large := 2*i + 1
		for page, payload := range map[uint64][]byte{large - 1: []byte("page"), large: make([]byte, 1<<20)} {
			if err := s.add(payload, page, page, 1); err != nil {
				t.Fatal(err)
			}
		}
		c, err := s.take(large)
		if err != nil || c.first != large {
			t.Fatalf("took %+v, %v", c, err)
		}
		s.done(c)
	}
	held := 0
	for _, c := range s.crates {
		held += cap(c.payload)
	}
	if len(s.crates) != 100 || held > 64*100 || s.sizeBytes != held {
		t.Errorf("%d frames hold %d bytes, counted as %d", len(s.crates), held, s.sizeBytes)
	}
}

// stuckMemory stops the first run of pages until it is released.
type stuckMemory struct {
	*fakeMemory
	stuck, release chan struct{}
}

func (m *stuckMemory) FillRun(gpa memory.GPA, count int, fn func(i int, page []byte) error) (uint64, error) {
	if pageNumber(gpa) == 0 {
		close(m.stuck)
		<-m.release
	}
	return m.fakeMemory.FillRun(gpa, count, fn)
}

// TestMissInStock: a page that the background has brought is stored by who misses it, whatever the background does, and not asked for.
func TestMissInStock(t *testing.T) {
	guest, source := newGuest(t, 96), newSource(t, 96)
	absent := setOf(guest, allPages(guest)...)
	m := &stuckMemory{newFakeMemory(guest, absent), make(chan struct{}), make(chan struct{})}
	l := newLinks(t, 1)
	s := NewServer(source, absent, ServerOptions{})
	p := newPagerOf(t, m, "", guest)
	go func() {
		<-m.stuck
		if !m.touch(pageGPA(10), nil) {
			t.Error("page 10 did not come")
		}
		close(m.release)
	}()
	if serveErr, err := runBoth(s, p, l); err != nil {
		t.Fatal(err, serveErr)
	}
	if st := p.Stats(); st.FaultsStocked != 1 || st.Faults != 0 || st.PagesBackground != 96 || st.PagesLate != 0 || st.Latency.Count != 1 {
		t.Errorf("%+v", st)
	}
	if err := m.check(nil); err != nil {
		t.Error(err)
	}
}

// slowMemory stores one run of pages a tick.
type slowMemory struct {
	*fakeMemory
	ticks <-chan time.Time
}

func (m *slowMemory) FillRun(gpa memory.GPA, count int, fn func(i int, page []byte) error) (uint64, error) {
	<-m.ticks
	return m.fakeMemory.FillRun(gpa, count, fn)
}

// TestBusyIsNotSilent: a destination that stores for longer than the peer timeout, with everything read, does not take its peer for silent.
func TestBusyIsNotSilent(t *testing.T) {
	const timeout = 300 * time.Millisecond
	guest, source := newGuest(t, 320), newSource(t, 320)
	absent := setOf(guest, allPages(guest)...)
	m := &slowMemory{newFakeMemory(guest, absent), time.Tick(timeout / 10)}
	l := newLinks(t, 1)
	s := NewServer(source, absent, ServerOptions{})
	p := NewPager(m, PagerOptions{PeerTimeout: timeout})
	if serveErr, err := runBoth(s, p, l); err != nil {
		t.Fatal(err, serveErr)
	}
	if err := m.check(nil); err != nil {
		t.Error(err)
	}
}

// orderedMemory notes in which order runs of pages are stored.
type orderedMemory struct {
	*fakeMemory
	stored []uint64 // the first page of each
}

func (m *orderedMemory) FillRun(gpa memory.GPA, count int, fn func(i int, page []byte) error) (uint64, error) {
	m.stored = append(m.stored, pageNumber(gpa))
	return m.fakeMemory.FillRun(gpa, count, fn)
}

// TestStockFromMiss: what lies near the page that was missed last is stored first.
func TestStockFromMiss(t *testing.T) {
	const missed = 5
	guest := newGuest(t, 36)
	var absent []memory.GPA
	for page := range uint64(12) {
		absent = append(absent, pageGPA(page))
	}
	m := &orderedMemory{fakeMemory: newFakeMemory(guest, setOf(guest, absent...))}
	l := newLinks(t, 1)
	defer l.close()
	r := newRun(newPagerOf(t, m, "", guest), t.Context(), l.destination[0], l.destination[1:])
	a := newArrivals(r, l.destination[1], onBackground)
	r.stocks = []*stock{a.stock}
	for first := uint64(0); first < 12; first += 4 {
		if err := a.stockUp(frameOf(t, first, 4)); err != nil {
			t.Fatal(err)
		}
	}
	a.stock.close()
	if err := r.missed(pageGPA(missed)); err != nil {
		t.Fatal(err)
	}
	if err := a.storeStock(); !errors.Is(err, errComplete) {
		t.Fatal(err)
	}
	if want := []uint64{missed, 4, 8, 0}; !slices.Equal(m.stored, want) {
		t.Errorf("stored from pages %d, want %d", m.stored, want)
	}
	if err := r.wait(); err != nil {
		t.Error(err)
	}
}
