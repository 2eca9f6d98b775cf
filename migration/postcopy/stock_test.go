package postcopy

import (
	"bytes"
	"context"
	"errors"
	"testing"

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
		if err := s.add(frameOf(t, first, 10), first, first+9); err != nil {
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

// TestStockIsBounded: what is beyond the bound waits for room, or for the end of the run.
func TestStockIsBounded(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	s := newStock(ctx)
	big := make([]byte, stockBytes/2+1)
	if err := s.add(big, 0, 1); err != nil {
		t.Fatal(err)
	}
	added := make(chan error)
	go func() { added <- s.add(big, 2, 3) }()
	c, err := s.take(0)
	if err != nil || c.first != 0 {
		t.Fatalf("took %+v, %v", c, err)
	}
	s.done(c)
	if err := <-added; err != nil || s.sizeBytes != len(big) {
		t.Errorf("%d bytes, %v", s.sizeBytes, err)
	}
	go func() { added <- s.add(big, 4, 5) }()
	over := errors.New("over")
	cancel(over)
	if err := <-added; !errors.Is(err, over) || len(s.crates) != 1 {
		t.Errorf("%d frames, %v", len(s.crates), err)
	}
	if _, err := s.take(0); !errors.Is(err, over) {
		t.Errorf("taken after the end: %v", err)
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
	if st := p.Stats(); st.FaultsStocked != 1 || st.Faults != 0 || st.PagesBackground != 96 || st.Latency.Count != 1 {
		t.Errorf("%+v", st)
	}
	if err := m.check(nil); err != nil {
		t.Error(err)
	}
}
