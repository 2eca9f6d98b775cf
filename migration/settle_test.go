package migration

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/inject"
	"github.com/fineline-vmm/fineline/migration/journal"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// TestJournalsThatAreNeeded: who ends while the other side may still have to ask leaves its journal, and
// nobody else does.
func TestJournalsThatAreNeeded(t *testing.T) {
	verify := func(t *testing.T, s *side, want bool) {
		t.Helper()
		if got := s.journal.Needed(); got != want {
			t.Errorf("the journal of the %s is needed: %v, want %v", s.name, got, want)
		}
	}
	t.Run("completed", func(t *testing.T) {
		p := newPair(t)
		p.migrate()
		<-p.l.ctx.Done() // DONE has come
		verify(t, p.src, false)
		verify(t, p.dst, false)
	})
	t.Run("taken back", func(t *testing.T) {
		p := newPair(t)
		p.plan(string(inject.SourceStateSent) + "=error")
		p.migrate()
		verify(t, p.src, false)
		verify(t, p.dst, false)
	})
	t.Run("in doubt, then decided by hand", func(t *testing.T) {
		p, doubt, received := doubtful(t, false)
		verify(t, p.src, true)
		if err := p.l.Close(); err != nil {
			t.Error(err)
		}
		<-received
		verify(t, p.dst, true) // "discarded" is written and not told
		if _, err := ResolveInDoubt(doubt, GuestIsThere); err != nil {
			t.Error(err)
		}
		verify(t, p.src, true) // else a destination that is ready could never take over
	})
	t.Run("owner without DONE", func(t *testing.T) {
		p, doubt, received := doubtful(t, true)
		if err := <-received; err != nil {
			t.Error(err)
		}
		verify(t, p.dst, true)
		doubt.sender.dial = p.dial
		if _, err := doubt.Retry(t.Context()); err != nil {
			t.Error(err)
		}
		<-p.l.ctx.Done()
		verify(t, p.src, false)
		verify(t, p.dst, false)
	})
}

// TestKeepAfterCommit: a human says "here" while COMMIT is on its way once more. The answer is waited for.
func TestKeepAfterCommit(t *testing.T) {
	p, doubt, received := doubtful(t, false)
	doubt.sender.dial = p.dial
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p.dst.onRun = func() error {
		cancel()
		return nil
	}
	_, err := doubt.Retry(ctx)
	if errors.As(err, &doubt) {
		_, _ = ResolveInDoubt(doubt, GuestIsHere)
	}
	if err != nil {
		t.Errorf("retry: %v", err)
	}
	if err := <-received; err != nil {
		t.Error(err)
	}
	p.verifyLaw(destination)
}

// TestKeepUnanswered: the answer to that COMMIT is lost. "Here" is refused until the source has asked again.
func TestKeepUnanswered(t *testing.T) {
	p, doubt, received := doubtful(t, false)
	dials := 0
	doubt.sender.dial = func(ctx context.Context) (net.Conn, error) {
		if dials++; dials > 1 {
			return nil, errNet
		}
		return p.dial(ctx)
	}
	p.dst.onRun = func() error {
		p.l.current().interrupt()
		return nil
	}
	if _, err := doubt.Retry(t.Context()); !errors.As(err, &doubt) {
		t.Fatalf("retry: %v", err)
	}
	if err := <-received; err != nil {
		t.Error(err)
	}
	if _, err := ResolveInDoubt(doubt, GuestIsHere); !errors.Is(err, errJustCommitted) {
		t.Errorf("decided: %v", err)
	}
	p.verifyLaw(destination)
	doubt.sender.dial = p.dial
	if _, err := doubt.Retry(t.Context()); err != nil {
		t.Error(err)
	}
	p.verifyLaw(destination)
}

// TestSettlingIsShown: while a commit is without an answer, progress says so, and no more that the guest is being moved.
func TestSettlingIsShown(t *testing.T) {
	p := newPair(t)
	var phases []string // of one goroutine: nothing else reports after the pause
	p.opts.Progress = func(now Progress) { phases = append(phases, now.Phase) }
	_, doubt, received := p.doubtful(false)
	if i := slices.Index(phases, PhaseSettling); i < slices.Index(phases, stagePausing.String()) {
		t.Errorf("phases %v", phases)
	}
	doubt.sender.dial = p.dial
	if _, err := doubt.Retry(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-received; err != nil {
		t.Error(err)
	}
	if last := phases[len(phases)-1]; last == PhaseSettling {
		t.Errorf("phases %v", phases)
	}
}

// TestRetryTellsTheOutcome: what a doubt ends with is not called a doubt.
func TestRetryTellsTheOutcome(t *testing.T) {
	p, doubt, received := doubtful(t, false)
	doubt.sender.dial = p.dial
	p.dst.onRun = func() error { return errors.New("broken") }
	result, err := doubt.Retry(t.Context())
	if !errors.Is(err, ErrNotStarted) || result.Status != StatusFailed {
		t.Errorf("%v, status %s", err, result.Status)
	}
	<-received
}

// TestCloseWaitsForReceive: when Close returns, the machine is discarded and the journal says so.
func TestCloseWaitsForReceive(t *testing.T) {
	p := newPair(t)
	p.listenUnix()
	restoring := make(chan struct{})
	p.dst.onRestore = func() error {
		close(restoring)
		<-p.l.ctx.Done()
		for range 1000 {
			runtime.Gosched() // a Close that does not wait returns now
		}
		return nil
	}
	closed := make(chan journal.Phase)
	go func() {
		<-restoring
		_ = p.l.Close()
		phase, _ := lastPhase(p.dst.journal.Records("guest", 1), "guest", 1, journal.Destination)
		closed <- phase
	}()
	p.migrate()
	if phase := <-closed; phase != journal.Discarded {
		t.Errorf("closed with the journal at %q", phase)
	}
	if _, err := p.l.Receive(t.Context(), p.dst); !errors.Is(err, ErrStopped) {
		t.Errorf("received after the end: %v", err)
	}
	p.verifyLaw(source)
}

// TestStoppedDestination: the source reads that its destination was stopped, not how that looked to a connection there.
func TestStoppedDestination(t *testing.T) {
	p := newPair(t)
	p.neverConverge()
	busy, stopped := p.opts.Progress, false
	p.opts.Progress = func(now Progress) {
		busy(now)
		if now.Round == 2 && !stopped {
			stopped = true
			go p.l.Close()
			<-p.l.ctx.Done()
		}
	}
	out := p.migrate()
	if !errors.As(out.sendErr, new(*AbortedError)) || !strings.Contains(out.sendErr.Error(), ErrStopped.Error()) {
		t.Errorf("send: %v", out.sendErr)
	}
	if !isDiscarded(out.gotErr) || !errors.Is(out.gotErr, ErrStopped) {
		t.Errorf("receive: %v", out.gotErr)
	}
	p.verifyLaw(source)
}

// TestNoDoubtAboutTheDead: a source that is proved dead leaves nothing to ask a human for.
func TestNoDoubtAboutTheDead(t *testing.T) {
	p := newPair(t)
	p.inDoubt = func(err error) { t.Errorf("in doubt: %v", err) }
	p.plan(string(inject.SourceStateSent) + "=kill")
	p.migrate()
	p.verifyLaw(destination)
}

// TestDoubtAboutAnUnknownDeath: one whose journal is gone does.
func TestDoubtAboutAnUnknownDeath(t *testing.T) {
	p := newPair(t)
	p.opts.Journal = journal.New("/nowhere", nullSink{}, nil)
	told := make(chan error, 1)
	p.inDoubt = func(err error) { told <- err }
	p.plan(string(inject.SourceStateSent) + "=kill")
	p.listenUnix()
	p.opts.hooks = p.src.hooks
	p.opts.hooks.dial = p.dial
	received := p.receiveInBackground(t.Context())
	_, _ = Send(t.Context(), p.src, p.l.Address(), p.opts)
	<-told
	if err := p.l.ResolveInDoubt(GuestIsThere); err != nil {
		t.Error(err)
	}
	if err := <-received; !isDiscarded(err) {
		t.Error(err)
	}
	p.verifyLaw(nobody)
}

// TestAcceptedIsSaid: before its acceptance a machine is nothing that a destination could lose.
func TestAcceptedIsSaid(t *testing.T) {
	hello := sendMessage(wire.TypeHello, hostileHello())
	for name, c := range map[string]struct {
		steps    []step
		hangUp   bool
		accepted bool
	}{
		"silent":       {steps: []step{hello}},
		"hangs up":     {steps: []step{hello}, hangUp: true},
		"cancels":      {steps: []step{hello, sendMessage(wire.TypeAbort, wire.NewReason("no", true))}},
		"lost in time": {steps: opening(), hangUp: true, accepted: true},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t)
			p.opts.PeerTimeout = 200 * time.Millisecond
			p.listenUnix()
			conn := p.stranger()
			read := make(chan struct{})
			go func() {
				defer close(read)
				_, _ = io.Copy(io.Discard, conn)
			}()
			if err := newRawWriter(conn).play(c.steps...); err != nil {
				t.Fatal(err)
			}
			if c.hangUp {
				_ = conn.(*net.UnixConn).CloseWrite()
			}
			_, err := p.l.Receive(t.Context(), p.dst)
			var discarded *DiscardedError
			if !errors.As(err, &discarded) || discarded.Accepted != c.accepted {
				t.Errorf("%+v", err)
			}
			<-read
		})
	}
}

// TestStaleGenerationChangesNothing: to refuse a hand-over again must not change what became of it.
func TestStaleGenerationChangesNothing(t *testing.T) {
	p := newPair(t)
	for _, phase := range []journal.Phase{journal.Accepted, journal.Ready, journal.Owner} {
		r := journal.Record{MachineID: "guest", Generation: 1, Side: journal.Destination, Phase: phase}
		if err := p.dst.journal.Append(r); err != nil {
			t.Fatal(err)
		}
	}
	out := p.migrate()
	if refused := (*RefusedError)(nil); !errors.As(out.sendErr, &refused) {
		t.Error(out.sendErr)
	}
	phase, _ := lastPhase(p.dst.journal.Records("guest", 1), "guest", 1, journal.Destination)
	if phase != journal.Owner {
		t.Errorf("the owner's journal ends with %q", phase)
	}
}

// TestPreflightIsBounded: also when the timeout is to be ignored, since nothing is promised yet.
func TestPreflightIsBounded(t *testing.T) {
	p := newPair(t)
	ours, theirs := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, theirs) }()
	defer theirs.Close()
	p.opts.hooks = p.src.hooks
	p.opts.hooks.dial = func(context.Context) (net.Conn, error) { return ours, nil }
	p.opts.Timeout, p.opts.TimeoutStrategy = 200*time.Millisecond, TimeoutIgnore
	go func() { _ = sendMessage(wire.TypeHello, hostileHello())(newRawWriter(theirs)) }()
	if _, err := Send(t.Context(), p.src, Address{}, p.opts); !errors.Is(err, ErrTimeout) {
		t.Errorf("%v, want a timeout", err)
	}
	p.verifyLaw(source)
}

// slowHello makes the first write of a connection take an hour.
type slowHello struct {
	net.Conn
	clock *stepClock
	done  bool
}

func (c *slowHello) Write(p []byte) (int, error) {
	if !c.done {
		c.done = true
		c.clock.now += time.Hour
	}
	return c.Conn.Write(p)
}

// TestSlowGreeting: a destination that was slow to greet is not taken for one that is far away.
func TestSlowGreeting(t *testing.T) {
	p := newPair(t)
	c := &stepClock{}
	p.src.hooks.clock = c
	p.wrap = func(side string, conn net.Conn) net.Conn {
		if side == source {
			return &slowHello{Conn: conn, clock: c}
		}
		return conn
	}
	p.opts.Progress = func(g Progress) {
		if g.Phase == "precopy" {
			c.now++ // else the bandwidth would be infinite
			_ = p.src.mem.StoreUint64(memory.GPA(0), uint64(c.now))
		}
	}
	out := p.migrate()
	if out.sendErr != nil || !out.sent.Converged {
		t.Errorf("%v, converged %v after %d rounds", out.sendErr, out.sent.Converged, len(out.sent.Rounds))
	}
}

// hangingSink is a disk that hangs when the state has been sent.
type hangingSink struct {
	nullSink
	syncs   atomic.Int32
	hang    func()
	release chan struct{}
}

func (s *hangingSink) Sync() error {
	if s.syncs.Add(1) == 2 { // the first is of precopy
		s.hang()
		<-s.release
	}
	return nil
}

// TestDiskHangsInDowntime: a cancel brings the guest back all the same.
func TestDiskHangsInDowntime(t *testing.T) {
	p := newPair(t)
	ctx, cancel := context.WithCancel(t.Context())
	p.ctx = ctx
	sink := &hangingSink{hang: cancel, release: make(chan struct{})}
	defer close(sink.release)
	p.opts.Journal = journal.New("/j", sink, nil)
	out := p.migrate()
	if !errors.Is(out.sendErr, context.Canceled) {
		t.Errorf("%v", out.sendErr)
	}
	p.verifyLaw(source)
}
