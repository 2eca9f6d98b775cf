package postcopy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// cutter ends a connection inside or after one of the frames of a set of connections.
type cutter struct {
	left atomic.Int64 // frames until the cut; below 0: it was made, or never will be
	part float64      // of the last frame that still leaves
	done atomic.Bool
}

type cutConn struct {
	net.Conn
	cut *cutter
}

func (c *cutConn) Write(p []byte) (int, error) {
	if c.cut.left.Add(-1) != 0 {
		return c.Conn.Write(p)
	}
	c.cut.done.Store(true)
	n, _ := c.Conn.Write(p[:int(float64(len(p))*c.cut.part)])
	c.Conn.Close()
	return n, net.ErrClosed
}

// cutLinks returns links that a cutter ends; frames counts from 1, 0 is never.
func cutLinks(t testing.TB, background int, frames int64, part float64) (*links, *cutter) {
	cut := &cutter{part: part}
	cut.left.Store(frames)
	l := &links{}
	for range 1 + background {
		a, b := newPair(t)
		l.source = append(l.source, newConn(&cutConn{a, cut}))
		l.destination = append(l.destination, newConn(&cutConn{b, cut}))
	}
	return l, cut
}

// hybrid is a source and a destination in the last phase of a hybrid migration: the destination has old content
// of some pages, the set of them is absent, and one line of each has changed.
type hybrid struct {
	source *memory.Guest
	stale  *memory.PageSet
	m      *fakeMemory

	mu      sync.Mutex
	encoded map[memory.GPA]bool
}

const changedLine = 5

func newHybrid(t testing.TB, pages uint64) *hybrid {
	t.Helper()
	h := &hybrid{source: newSource(t, pages), encoded: map[memory.GPA]bool{}}
	guest := newGuest(t, pages)
	h.stale = guest.NewPageSet()
	for i, gpa := range allPages(guest) {
		page := sourcePage(gpa)
		if i%5 != 0 {
			h.stale.Add(gpa)
			copy(page[changedLine*64:][:64], oldLine())
		}
		if err := guest.WriteAt(gpa, page); err != nil {
			t.Fatal(err)
		}
	}
	h.m = newFakeMemory(guest, h.stale)
	return h
}

func oldLine() []byte { return bytes.Repeat([]byte{0xee}, 64) }

// encode sends every third page as its changed line.
func (h *hybrid) encode(gpa memory.GPA, page []byte, b *wire.Batch) {
	h.mu.Lock()
	if h.encoded[gpa] {
		panic(fmt.Sprintf("page %#x was encoded twice", uint64(gpa)))
	}
	h.encoded[gpa] = true
	h.mu.Unlock()
	if pageNumber(gpa)%3 != 0 {
		WholePages(gpa, page, b)
		return
	}
	b.AppendDelta(pageNumber(gpa), 1<<changedLine, page[changedLine*64:][:64], oldLine())
}

// runCut runs again and again, cut after so many frames each time, and at last to the end.
func runCut(t *testing.T, s *Server, p *Pager, frames ...int64) {
	t.Helper()
	for _, n := range append(frames, 0) {
		l, _ := cutLinks(t, 1, n, 0.5)
		complete, err := recoverOnce(s, p, l)
		if err != nil {
			t.Fatal(err)
		}
		if complete != (n == 0) {
			t.Fatalf("complete: %v, cut: %d", complete, n)
		}
	}
}

// recoverOnce runs with the links; after a failure it has the source prepared for the next ones, as both callers do.
func recoverOnce(s *Server, p *Pager, l *links) (complete bool, err error) {
	serveErr, runErr := runBoth(s, p, l)
	if runErr == nil {
		return true, nil
	}
	for _, err := range []error{serveErr, runErr} {
		if !errors.Is(err, ErrConnectionLost) && !errors.Is(err, context.Canceled) {
			return false, fmt.Errorf("serve: %w, run: %w", serveErr, runErr)
		}
	}
	return false, s.Reset(p.Absent())
}

// TestCutAtEveryFrame cuts the connections in every frame of a run and after it, and goes on over new ones.
func TestCutAtEveryFrame(t *testing.T) {
	for _, part := range []float64{0, 0.5, 1} {
		for frames := int64(1); ; frames++ {
			if !cutAndRecover(t, frames, part) {
				t.Logf("%d frames, cut at %v", frames-1, part)
				break
			}
		}
	}
}

func cutAndRecover(t *testing.T, frames int64, part float64) (cut bool) {
	t.Helper()
	const pages = 72
	h := newHybrid(t, pages)
	s := NewServer(h.source, h.stale, ServerOptions{Encoder: h.encode, BatchBytes: 3 * wire.MinBatchBytes, Compress: frames%2 == 0})
	p := newTestPager(t, h.m, "stride")
	wait := h.m.guests(2, uint64(frames), nil)
	l, c := cutLinks(t, 2, frames, part)
	complete, err := recoverOnce(s, p, l)
	if err == nil && !complete {
		complete, err = recoverOnce(s, p, newLinks(t, 2))
	}
	if err != nil || !complete {
		t.Fatalf("cut at frame %d: complete: %v, %v", frames, complete, err)
	}
	if err := h.m.check(wait()); err != nil {
		t.Fatalf("cut at frame %d: %v", frames, err)
	}
	return c.done.Load()
}

// TestCutAgainAndAgain cuts at random until everything has come.
func TestCutAgainAndAgain(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		h := newHybrid(t, 300)
		s := NewServer(h.source, h.stale, ServerOptions{Encoder: h.encode, BatchBytes: 2 * wire.MinBatchBytes})
		p := newTestPager(t, h.m, "auto")
		cpus := rnd.IntN(4)
		streams := 1 + rnd.IntN(2)
		if cpus > 0 && seed%3 == 0 {
			streams = 0 // then every page comes because it was asked for, again after each cut
		}
		wait := h.m.guests(cpus, seed, nil)
		runs := 0
		for complete := false; !complete; runs++ {
			l, _ := cutLinks(t, streams, 1+rnd.Int64N(60), rnd.Float64())
			var err error
			if complete, err = recoverOnce(s, p, l); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		if err := h.m.check(wait()); err != nil {
			t.Errorf("seed %d, %d runs: %v", seed, runs, err)
		}
	}
}

// TestResetRefuses: a destination cannot ask for what it was never to lack.
func TestResetRefuses(t *testing.T) {
	source := newSource(t, 100)
	all := allPages(source)
	s := NewServer(source, setOf(source, all[:50]...), ServerOptions{})
	if err := s.Reset(setOf(source, all[49:51]...)); !errors.Is(err, wire.ErrProtocol) {
		t.Errorf("%v", err)
	}
	if err := s.Reset(setOf(source, all[40:50]...)); err != nil {
		t.Error(err)
	}
	if err := s.Reset(setOf(source, all[30:50]...)); !errors.Is(err, wire.ErrProtocol) {
		t.Errorf("what the destination said it has: %v", err)
	}
}
