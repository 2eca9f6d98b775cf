package migration

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/migration/wire"
)

// cutNetwork is a link that somebody cuts after the guest has moved, and that nobody repairs until told.
type cutNetwork struct {
	*pair
	moved atomic.Bool
	lost  chan Progress // gets the first report of a lost connection

	mu            sync.Mutex
	written       int // since the guest has moved
	cut, repaired bool
}

func newCutNetwork(t *testing.T) *cutNetwork {
	n := &cutNetwork{pair: newPair(t), lost: make(chan Progress, 1)}
	n.opts.Mode, n.opts.Granularity = wire.ModePostcopy, GranularityPage
	n.opts.MaxBandwidthBytesPerS = 4 << 20
	n.listen("unix:" + filepath.Join(t.TempDir(), "s"))
	n.dst.onRun = func() error {
		n.moved.Store(true)
		return nil
	}
	n.wrap = func(side string, c net.Conn) net.Conn {
		if side == destination {
			return c
		}
		return &severedConn{Conn: c, network: n}
	}
	n.opts.Progress = func(p Progress) {
		if p.Phase == PhaseReconnecting {
			select {
			case n.lost <- p:
			default:
			}
		}
	}
	return n
}

// severedConn is closed by a write some KiB after the guest has moved, and by every write while the link is cut.
type severedConn struct {
	net.Conn
	network *cutNetwork
}

func (c *severedConn) Write(p []byte) (int, error) {
	if c.network.cuts(len(p)) {
		c.Conn.Close()
	}
	return c.Conn.Write(p)
}

func (n *cutNetwork) cuts(bytes int) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.moved.Load() {
		n.written += bytes
	}
	n.cut = !n.repaired && (n.cut || n.written > 64<<10)
	return n.cut
}

// repair lets everything through from now on.
func (n *cutNetwork) repair() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.repaired = true
}

// TestRecoverByHand: while the link is cut an attempt says why it failed, also one to another address, which is
// forgotten then; when it is repaired an attempt succeeds.
func TestRecoverByHand(t *testing.T) {
	n := newCutNetwork(t)
	recoveries := make(chan Recovery)
	n.opts.Recover = recoveries
	attempt := func(to Address) error {
		done := make(chan error, 1)
		select {
		case recoveries <- Recovery{To: to, Done: done}:
			return <-done
		case <-t.Context().Done():
			return context.Cause(t.Context())
		}
	}
	asked := make(chan error, 3)
	go func() {
		lost := <-n.lost
		if lost.AbsentPages == 0 || lost.Lost == "" || lost.PostcopyPages <= lost.AbsentPages || lost.LeftMS != nil {
			t.Errorf("told %+v", lost)
		}
		asked <- attempt(Address{})
		nowhere, err := ParseAddress("unix:" + filepath.Join(t.TempDir(), "nowhere"))
		if err != nil {
			t.Error(err)
		}
		asked <- attempt(nowhere)
		n.repair()
		asked <- nil
	}()
	out := n.migrate()
	if out.sendErr != nil || out.gotErr != nil {
		t.Fatalf("send: %v; receive: %v", out.sendErr, out.gotErr)
	}
	if err := <-n.complete; err != nil {
		t.Fatal(err)
	}
	if err := <-asked; err == nil {
		t.Error("recovered over a link that is cut")
	}
	if err := <-asked; err == nil {
		t.Error("recovered over an address at which nobody listens")
	}
	if out.sent.RecoveredTimes == 0 {
		t.Error("no connection was lost")
	}
	n.verifyLaw(destination)
	n.verifyGuest()
}

// TestGiveUp ends a post-copy whose link is cut. What the guest lacks is lost with the source.
func TestGiveUp(t *testing.T) {
	n := newCutNetwork(t)
	go func() {
		<-n.lost
		n.giveUp()
		close(n.deaths.of(n.src.process.PID)) // the process ends
	}()
	out := n.migrate()
	if !errors.Is(out.sendErr, ErrGiveUp) || out.sent.Status != StatusFailed {
		t.Fatalf("send: %v, %s", out.sendErr, out.sent.Status)
	}
	toRunning := 0.0
	for _, phase := range out.sent.Phases {
		toRunning += phase.MS
	}
	if out.sent.TotalMS <= toRunning {
		t.Errorf("it took %v ms, and %v until the guest ran", out.sent.TotalMS, toRunning)
	}
	if err := <-n.complete; !errors.Is(err, ErrMemoryLost) {
		t.Fatalf("the destination says %v", err)
	}
	if !n.src.released {
		t.Error("the source was not released")
	}
}

// TestGiveUpOverAConnection: nobody has to cut the link first.
func TestGiveUpOverAConnection(t *testing.T) {
	n := newCutNetwork(t)
	n.repair()
	gaveUp := make(chan struct{})
	n.opts.GiveUp = gaveUp
	var once atomic.Bool
	n.opts.Progress = func(p Progress) {
		if p.Phase == PhasePostcopy && once.CompareAndSwap(false, true) {
			close(gaveUp)
			close(n.deaths.of(n.src.process.PID))
		}
	}
	out := n.migrate()
	if !errors.Is(out.sendErr, ErrGiveUp) {
		t.Fatalf("send: %v", out.sendErr)
	}
	if err := <-n.complete; !errors.Is(err, ErrMemoryLost) {
		t.Fatalf("the destination says %v", err)
	}
}

// TestEstimate: what the rounds have shown, played on by the rule.
func TestEstimate(t *testing.T) {
	rule := Rule{MaxDowntime: 10 * time.Millisecond, MaxRounds: 30, StallRounds: 5}
	first := Round{Pages: 100_000, RemainingPages: 50_000, took: 10 * time.Second} // 100 us a page
	look := outlook{rounds: []Round{first}, overhead: 2 * time.Millisecond}
	ms := func(p *float64) float64 {
		if p == nil {
			return -1
		}
		return *p
	}
	for _, c := range []struct {
		name            string
		look            outlook
		round           Round
		sent            uint64
		roundLeft, left float64 // ms; -1: nothing is said
	}{
		{"too early", look, Round{Pages: 50_000, took: time.Second}, 100, -1, -1},
		{"the first round", outlook{}, Round{Pages: 100_000, took: time.Second}, 25_000, 3000, -1},
		// 4 s left of this round, then 25000, 12500 ... pages until 97 or fewer are left: 100 us each, and the
		// downtime of the last of them.
		{"halves", look, Round{Pages: 50_000, took: time.Second}, 10_000, 4000, 4000 + 2500*2 + 2},
		{"no end", outlook{rounds: []Round{{Pages: 100_000, RemainingPages: 100_000, took: time.Second}}},
			Round{Pages: 100_000, took: time.Second}, 50_000, 1000, -1},
	} {
		roundLeft, left := estimate(rule, c.look, c.round, c.sent)
		near := func(got, want float64) bool { return got >= want*0.97 && got <= want*1.03 || got == want }
		if !near(ms(roundLeft), c.roundLeft) || !near(ms(left), c.left) {
			t.Errorf("%s: %v, %v ms; want %v, %v", c.name, ms(roundLeft), ms(left), c.roundLeft, c.left)
		}
	}
	if len(look.rounds) != 1 {
		t.Error("the estimate has added to the rounds")
	}
}

// TestRates: lines belong to the round in which they were written.
func TestRates(t *testing.T) {
	s := &sender{}
	s.opts.Granularity = GranularityLine
	s.result.Rounds = []Round{{RemainingPages: 1, took: 2 * time.Second}}
	s.dirtyLines(600)
	s.result.Rounds = append(s.result.Rounds, Round{took: time.Second, Paused: true})
	s.dirtyLines(1)
	if r := s.result.Rounds; r[0].DirtyLinesPerS != 300 || r[1].DirtyLinesPerS != 0 {
		t.Errorf("%+v", r)
	}
}
