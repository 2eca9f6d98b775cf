package postcopy

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// serve starts a server whose destination is the test, and returns its connections. The server ends with the test.
func serve(t testing.TB, s *Server, background int) []Conn {
	t.Helper()
	l := newLinks(t, background)
	done := make(chan error, 1)
	go func() { done <- s.Serve(context.Background(), l.source[0], l.source[1:]) }()
	t.Cleanup(func() {
		l.close()
		<-done
	})
	return l.destination
}

func ask(t testing.TB, c *Conn, pages ...uint64) {
	t.Helper()
	if err := c.Writer.Bytes(wire.TypeRequest, wire.AppendRequest(nil, pages)); err != nil {
		t.Fatal(err)
	}
}

// TestMissedPageComesAlone: the missed page in a frame of its own, then the predicted ones in small frames,
// none twice.
func TestMissedPageComesAlone(t *testing.T) {
	source := newSource(t, 300)
	all := setOf(source, allPages(source)...)
	conns := serve(t, NewServer(source, all, ServerOptions{}), 0)
	predicted := []uint64{30, 9, 31, 8, 32, 10, 9, 29}
	ask(t, &conns[0], append([]uint64{20}, predicted...)...)
	if got := readPages(t, &conns[0]); !slices.Equal(got, []uint64{20}) {
		t.Fatalf("the first frame has %v", got)
	}
	var got []uint64
	for len(got) < 7 {
		frame := readPages(t, &conns[0])
		if len(frame) > predictedPages || !slices.IsSorted(frame) {
			t.Errorf("a frame of %v", frame)
		}
		got = append(got, frame...)
	}
	if !slices.Equal(got[:4], []uint64{8, 9, 30, 31}) {
		t.Errorf("first of the predicted came %v", got[:4])
	}
	ask(t, &conns[0], 9, 20, 8) // is there
	ask(t, &conns[0], 40)
	if got := readPages(t, &conns[0]); !slices.Equal(got, []uint64{40}) {
		t.Errorf("after what came before: %v", got)
	}
}

// TestNewestPredictionFirst: what was predicted last goes first, and old predictions are dropped.
func TestNewestPredictionFirst(t *testing.T) {
	source := newSource(t, 300)
	s := NewServer(source, setOf(source, allPages(source)...), ServerOptions{})
	a := newAnswerer(s, context.Background(), Conn{})
	for i := range uint64(predictedRequests + 1) {
		a.queue([]uint64{2 * i, 2*i + 1})
	}
	for i := uint64(predictedRequests); i > 0; i-- {
		if got := a.claimPredicted(); !slices.Equal(got, []uint64{2 * i, 2*i + 1}) {
			t.Fatalf("%v, want those of request %d", got, i)
		}
	}
	if got := a.claimPredicted(); len(got) != 0 {
		t.Errorf("the oldest were kept: %v", got)
	}
	if !s.unsent.has(0) {
		t.Error("what was dropped is not for the background")
	}
}

// TestClaimedPageGoesAgainWhole: asked for though the background has it, it comes at once, whole.
func TestClaimedPageGoesAgainWhole(t *testing.T) {
	h := newHybrid(t, 60)
	s := NewServer(h.source, h.stale, ServerOptions{Encoder: h.encode})
	conns := serve(t, s, 1)
	var pages uint64
	for {
		f, err := conns[1].Reader.Next(wire.Of(wire.TypePages, wire.TypeRoundEnd))
		if err != nil {
			t.Fatal(err)
		}
		if f.Type == wire.TypeRoundEnd {
			end, err := wire.Decode[wire.RoundEnd](f)
			if err != nil || end.Pages != h.stale.Len() {
				t.Fatalf("%+v, %v; want %d pages", end, err, h.stale.Len())
			}
			pages = end.Pages
			break
		}
	}
	ask(t, &conns[0], 6)
	f, err := conns[0].Reader.Next(wire.Of(wire.TypePages))
	if err != nil {
		t.Fatal(err)
	}
	if err := wire.EachRecord(f.Payload, func(rec wire.Record) error {
		if rec.Kind != wire.KindData || rec.First != 6 || rec.Count != 1 {
			t.Errorf("%+v", rec)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if again, background := s.sent.again.Load(), s.sent.background.Load(); again != 1 || background != pages {
		t.Errorf("%d pages went again and %d unasked, of %d", again, background, pages)
	}
}

// TestBackgroundFollowsMisses: it goes on behind the last missed page and around the end, in frames that ascend.
func TestBackgroundFollowsMisses(t *testing.T) {
	source := newSource(t, 60) // 21 pages from 0, 39 from 42
	s := NewServer(source, setOf(source, allPages(source)...), ServerOptions{})
	take := func(last uint64) uint64 {
		page, ok := s.claimNext(last)
		if !ok {
			return ^uint64(0)
		}
		return page
	}
	const none = ^uint64(0)
	for _, tc := range []struct{ cursor, last, want uint64 }{
		{0, 0, 0}, {1, 0, 1}, {10, 1, 10}, {11, 10, 11}, {10, 11, 12}, {21, 12, 42}, {79, 0, 79}, {80, 0, 80},
		{81, 80, none}, // behind the end the next frame begins
		{81, 0, 2}, {5, 2, 5}, {5, 5, 6}, {1 << 60, 6, none},
	} {
		s.cursor.Store(tc.cursor)
		if got := take(tc.last); got != tc.want {
			t.Errorf("cursor %d, after page %d: %d, want %d", tc.cursor, tc.last, got, tc.want)
		}
	}
}

// TestLimit: the background asks before each frame for what it writes, and ends with the answer; requests do not.
func TestLimit(t *testing.T) {
	source := newSource(t, 300)
	refused := errors.New("refused")
	asked := make(chan int)
	s := NewServer(source, setOf(source, allPages(source)...), ServerOptions{
		BatchBytes: 4 * wire.MinBatchBytes,
		Limit: func(_ context.Context, sizeBytes int) error {
			asked <- sizeBytes
			if <-asked == 0 {
				return refused
			}
			return nil
		},
	})
	l := newLinks(t, 1)
	defer l.close()
	done := make(chan error, 1)
	go func() { done <- s.Serve(context.Background(), l.source[0], l.source[1:]) }()
	sum := <-asked
	ask(t, &l.destination[0], 250) // while the background waits
	if got := readPages(t, &l.destination[0]); !slices.Equal(got, []uint64{250}) {
		t.Errorf("%v", got)
	}
	asked <- 1
	f, err := l.destination[1].Reader.Next(wire.Of(wire.TypePages))
	if err != nil || wire.HeaderBytes+f.WireBytes != sum {
		t.Errorf("%d bytes written, %d asked for, %v", wire.HeaderBytes+f.WireBytes, sum, err)
	}
	<-asked
	asked <- 0
	if err := <-done; !errors.Is(err, refused) {
		t.Errorf("Serve: %v", err)
	}
}

// TestUnreadableSource: a memory that fails ends Serve with its error.
func TestUnreadableSource(t *testing.T) {
	source := newSource(t, 60)
	s := NewServer(source, setOf(source, allPages(source)...), ServerOptions{})
	source.Close()
	l := newLinks(t, 1)
	defer l.close()
	if err := s.Serve(context.Background(), l.source[0], l.source[1:]); !errors.Is(err, memory.ErrClosed) {
		t.Errorf("Serve: %v", err)
	}
}

// TestFramesOfFewPages: however small a page is encoded, a frame of the background has no more than framePages.
func TestFramesOfFewPages(t *testing.T) {
	const pages = 3 * framePages
	source := newSource(t, pages)
	s := NewServer(source, setOf(source, allPages(source)...), ServerOptions{
		Encoder: func(gpa memory.GPA, page []byte, b *wire.Batch) { b.AppendLines(pageNumber(gpa), 1, page[:64]) },
	})
	conns := serve(t, s, 1)
	for got := 0; got < pages; {
		n := len(readPages(t, &conns[1]))
		if n > framePages {
			t.Fatalf("a frame of %d pages", n)
		}
		got += n
	}
}
