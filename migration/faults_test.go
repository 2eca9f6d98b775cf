package migration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/migration/inject"
	"github.com/fineline-vmm/fineline/migration/journal"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// Who may run the guest after one fault. Nobody: it died with the process that owned it.
const (
	nobody      = ""
	source      = "source"
	destination = "destination"
)

// lawfulOwners says who may run the guest after one fault, by the law and not by the code.
func lawfulOwners(point inject.Point, action inject.Action) []string {
	killed := action == inject.Kill
	switch point {
	case inject.SourcePreflight, inject.SourcePrecopy, inject.SourcePaused:
		if killed {
			return []string{nobody} // the destination was not ready
		}
		return []string{source}
	case inject.SourceStateSent:
		switch action {
		case inject.Kill:
			return []string{destination} // it holds everything, and the source is proved dead
		case inject.Cut:
			return []string{source, destination} // READY had arrived before the cut, or not
		}
		return []string{source}
	case inject.SourceCommitSent, inject.SourceDone:
		return []string{destination}
	case inject.SourceCancelled, inject.SourceFailed:
		if killed {
			return []string{nobody} // it had taken the guest back
		}
		return []string{source}
	case inject.DestinationAccepted, inject.DestinationReceiving, inject.DestinationReady, inject.DestinationDiscarded:
		return []string{source}
	case inject.DestinationOwner:
		if action == inject.Cut {
			return []string{destination}
		}
		return []string{nobody} // killed: died with its owner; error: the owner keeps it paused
	}
	if afterCommit(point) {
		return []string{destination} // pre-copy does not pass it
	}
	panic("no law for " + point)
}

// lawfulOwnersAfter is lawfulOwners where memory follows the guest: who holds a guest without its memory holds nothing.
func lawfulOwnersAfter(point inject.Point, action inject.Action) []string {
	killed := action == inject.Kill
	switch point {
	case inject.SourceStateSent, inject.SourceCommitSent, inject.SourceServing:
		if killed {
			return []string{nobody}
		}
	case inject.DestinationPaging, inject.DestinationComplete:
		if killed {
			return []string{nobody} // died with its owner
		}
		return []string{destination}
	}
	if point == inject.SourceServing {
		return []string{destination}
	}
	return lawfulOwners(point, action)
}

// TestLawAtEveryPoint fails one migration at each journalled phase, in each way, in each mode.
func TestLawAtEveryPoint(t *testing.T) {
	for _, mode := range []wire.Mode{wire.ModePrecopy, wire.ModePostcopy, wire.ModeHybrid} {
		for _, point := range inject.Points() {
			for _, action := range inject.Actions() {
				if mode == wire.ModePrecopy && afterCommit(point) {
					continue // no such phase
				}
				t.Run(fmt.Sprintf("%s/%s=%s", mode, point, action), func(t *testing.T) {
					t.Parallel()
					lawAt(t, mode, point, action)
				})
			}
		}
	}
}

func afterCommit(point inject.Point) bool {
	return point == inject.SourceServing || point == inject.DestinationPaging || point == inject.DestinationComplete
}

func lawAt(t *testing.T, mode wire.Mode, point inject.Point, action inject.Action) {
	p := newPair(t)
	p.opts.Mode = mode
	owners := lawfulOwners
	if mode.AfterCommit() {
		p.neverConverge()
		p.opts.PeerTimeout = time.Second // that a lost COMPLETE is asked for
		owners = lawfulOwnersAfter
	}
	p.failAt(point, action)
	out := p.migrate()
	if out.received && out.gotErr == nil && mode.AfterCommit() && !p.dst.isGone() {
		if err := <-p.complete; err == nil {
			p.verifyGuest()
		} else if !p.src.isGone() {
			t.Errorf("memory is lost though the source lives: %v", err)
		}
	}
	p.verifyLaw(owners(point, action)...)
	p.verifyReports(out)
}

// failAt has the migration pass the point, and fail there.
func (p *pair) failAt(point inject.Point, action inject.Action) {
	p.t.Helper()
	plan := fmt.Sprintf("%s=%s", point, action)
	switch point {
	case inject.SourceFailed, inject.DestinationDiscarded:
		// These phases are only reached after another failure, here the latest there is.
		plan += "," + string(inject.DestinationReady) + "=error"
	case inject.SourceCancelled:
		ctx, cancel := context.WithCancel(p.ctx)
		p.t.Cleanup(cancel)
		p.ctx = ctx
		p.dst.onRestore = func() error {
			cancel()
			return nil
		}
	}
	p.plan(plan)
}

// verifyReports checks that what each living side reports is what is.
func (p *pair) verifyReports(out outcomes) {
	p.t.Helper()
	if !p.src.isGone() {
		var doubt *InDoubtError
		gaveAway := out.sendErr == nil || errors.Is(out.sendErr, ErrNotStarted) || errors.Is(out.sendErr, ErrDestinationDied)
		if gaveAway != p.src.released {
			p.t.Errorf("send: %v, released %v", out.sendErr, p.src.released)
		}
		if errors.As(out.sendErr, &doubt) {
			p.t.Errorf("in doubt after one fault: %v", out.sendErr)
		}
	}
	if !p.dst.isGone() {
		if owner := out.gotErr == nil || errors.Is(out.gotErr, ErrNotStarted); owner == isDiscarded(out.gotErr) {
			p.t.Errorf("receive: %v", out.gotErr)
		}
		if !out.received {
			p.t.Error("the destination did not end by itself")
		}
	}
}

// errNet is what a broken connection gives in these tests.
var errNet = errors.New("the network broke")

// faults breaks connections at one operation, counted over all connections of both sides.
type faults struct {
	mu      sync.Mutex
	at      int  // the operation that fails
	lasting bool // and all after it, on every connection
	half    bool // a write that fails has written its first half
	count   int
	fired   bool
}

// next reports whether this operation fails.
func (f *faults) next() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count++
	if f.count-1 < f.at || f.fired && !f.lasting {
		return false
	}
	f.fired = true
	return true
}

func (f *faults) heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lasting = false
}

type faultyConn struct {
	net.Conn
	f *faults
}

func (c *faultyConn) Read(p []byte) (int, error) {
	if c.f.next() {
		c.Conn.Close()
		return 0, errNet
	}
	return c.Conn.Read(p)
}

func (c *faultyConn) Write(p []byte) (int, error) {
	if !c.f.next() {
		return c.Conn.Write(p)
	}
	n := 0
	if c.f.half {
		n, _ = c.Conn.Write(p[:len(p)/2])
	}
	c.Conn.Close()
	return n, errNet
}

// untilSuccess plays a migration whose n-th operation fails, for n = 0, 1, 2 ... until it is over before
// that, and returns how many operations it has. Each try is a test of its own, which cleans up.
func untilSuccess(t *testing.T, try func(p *pair, f *faults)) int {
	t.Helper()
	for n := 0; ; n++ {
		f := &faults{at: n}
		if !t.Run(fmt.Sprint(n), func(t *testing.T) { try(newPair(t), f) }) || !f.fired {
			return n
		}
	}
}

// verifyAgreement checks the law after a migration that broke somewhere between its two sides: one of them
// runs the guest, and both say so.
func (p *pair) verifyAgreement(out outcomes) {
	p.t.Helper()
	wanted := source
	if out.gotErr == nil {
		wanted = destination
	}
	p.verifyLaw(wanted)
	p.verifyReports(out)
	if p.t.Failed() {
		p.t.Logf("send: %v; receive: %v", out.sendErr, out.gotErr)
	}
}

// TestFailEveryOperation breaks the n-th read or write of either side, for n = 0, 1, 2 ... until the
// migration is over before it: a connection may break anywhere.
func TestFailEveryOperation(t *testing.T) {
	for _, half := range []bool{false, true} {
		t.Run(fmt.Sprintf("half=%v", half), func(t *testing.T) {
			t.Parallel()
			count := untilSuccess(t, func(p *pair, f *faults) {
				f.half = half
				p.wrap = func(_ string, c net.Conn) net.Conn { return &faultyConn{c, f} }
				p.verifyAgreement(p.migrate())
			})
			if count < 20 {
				t.Errorf("over after %d operations", count)
			}
		})
	}
}

// TestPartition is the same with a network that stays broken, between hosts that cannot prove each
// other's death. Nobody may run twice, and when the network is back the doubt ends.
func TestPartition(t *testing.T) {
	inDoubt := 0
	untilSuccess(t, func(p *pair, f *faults) {
		p.src.hooks.liveness, p.dst.hooks.liveness = unprovable{}, unprovable{}
		p.opts.ResolveTimeout = 1
		f.lasting = true
		p.wrap = func(_ string, c net.Conn) net.Conn { return &faultyConn{c, f} }
		doubt, got := p.migrateInto(f)
		if got {
			p.verifyLaw(destination)
		} else {
			p.verifyLaw(source)
		}
		if doubt {
			inDoubt++
		}
	})
	if inDoubt == 0 {
		t.Error("no partition left the source in doubt")
	}
}

// migrateInto runs a migration into a partition, heals it once the source has ended or is in doubt, and
// settles. It reports whether there was doubt, and whether the destination owns the guest.
func (p *pair) migrateInto(f *faults) (doubt, got bool) {
	p.listen("unix:" + p.t.TempDir() + "/s")
	p.opts.hooks = p.src.hooks
	p.opts.hooks.dial = p.dial
	ctx, cancel := context.WithCancel(p.t.Context())
	defer cancel()
	received := p.receiveInBackground(ctx)
	_, err := Send(p.ctx, p.src, p.l.Address(), p.opts)
	var e *InDoubtError
	if doubt = errors.As(err, &e); doubt {
		if runner, _ := p.world.who(); runner == source {
			p.t.Error("the source runs in doubt")
		}
		f.heal()
		e.sender.opts.ResolveTimeout = 2 * time.Second
		if _, err := e.Retry(p.ctx); errors.As(err, &e) {
			p.t.Errorf("in doubt with a whole network: %v", err)
		}
	}
	f.heal()
	if err == nil || doubt {
		return doubt, <-received == nil
	}
	// The source runs and may not have been able to say so; the operator stops the other side.
	cancel()
	return false, <-received == nil
}

// faultySink fails the n-th operation of a journal, and every later one.
type faultySink struct {
	journal.Sink
	f *faults
}

func (s *faultySink) Write(p []byte) (int, error) {
	if s.f.next() {
		return 0, errors.New("disk full")
	}
	return s.Sink.Write(p)
}

func (s *faultySink) Sync() error {
	if s.f.next() {
		return errors.New("medium error")
	}
	return s.Sink.Sync()
}

type nullSink struct{}

func (nullSink) Write(p []byte) (int, error) { return len(p), nil }
func (nullSink) Sync() error                 { return nil }
func (nullSink) Close() error                { return nil }

// TestFailEveryJournalOperation: a full or broken disk on either side never makes two owners, and
// somebody can run.
func TestFailEveryJournalOperation(t *testing.T) {
	for _, name := range []string{source, destination} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			untilSuccess(t, func(p *pair, f *faults) {
				f.lasting = true
				broken := journal.New("/j", &faultySink{nullSink{}, f}, nil)
				p.opts.Journal = p.src.journal
				if name == source {
					p.opts.Journal = broken
				} else {
					p.dst.journal = broken
				}
				p.verifyAgreement(p.migrate())
			})
		})
	}
}
