package migration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/migration/inject"
	"github.com/fineline-vmm/fineline/migration/journal"
)

// errNet is what a broken connection gives in these tests.
var errNet = errors.New("the network broke")

// faults breaks connections at one operation, counted over all connections of both sides.
type faults struct {
	mu      sync.Mutex
	at      int  // the operation that fails
	lasting bool // and all after it, on every connection
	asleep  bool // operations do not count yet
	half    bool // a write that fails has written its first half
	count   int
	fired   bool
}

// next reports whether this operation fails.
func (f *faults) next() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asleep {
		return false
	}
	f.count++
	if f.count-1 < f.at || f.fired && !f.lasting {
		return false
	}
	f.fired = true
	return true
}

func (f *faults) wake() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asleep = false
	return nil
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

// TestGivenUpBeforeTheStreams: a destination that has given up before it has its streams takes none, and the user reads why.
func TestGivenUpBeforeTheStreams(t *testing.T) {
	p := newPair(t)
	p.plan(string(inject.DestinationReceiving) + "=error")
	p.listenUnix()
	received := p.receiveInBackground(t.Context())
	p.opts.hooks, p.opts.Streams = p.src.hooks, 2
	dials := 0
	p.opts.hooks.dial = func(ctx context.Context) (net.Conn, error) {
		if dials++; dials > 1 {
			if err := <-received; !isDiscarded(err) {
				t.Errorf("receive: %v", err)
			}
		}
		return p.dial(ctx)
	}
	_, err := Send(p.ctx, p.src, p.l.Address(), p.opts)
	var aborted *AbortedError
	if !errors.As(err, &aborted) || !strings.Contains(err.Error(), string(inject.DestinationReceiving)) {
		t.Errorf("send: %v", err)
	}
	p.verifyLaw(source)
}

// TestPartition is the same with a network that stays broken, between hosts that cannot prove each
// other's death. Nobody may run twice, and when the network is back the doubt ends.
func TestPartition(t *testing.T) {
	inDoubt := 0
	fromPause := false
	try := func(p *pair, f *faults) {
		if fromPause {
			f.asleep, p.src.onPause = true, f.wake
		}
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
	}
	untilSuccess(t, try)
	fromPause = true // how many operations come before it differs by run, and might pass the commit over
	untilSuccess(t, try)
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

// faultySink fails the n-th operation of a journal, and every later one unless the disk has room again.
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

func (s *faultySink) Truncate(sizeBytes int64) error {
	if s.f.next() {
		return errors.New("medium error")
	}
	return s.Sink.Truncate(sizeBytes)
}

func (s *faultySink) Sync() error {
	if s.f.next() {
		return errors.New("medium error")
	}
	return s.Sink.Sync()
}

type nullSink struct{}

func (nullSink) Write(p []byte) (int, error) { return len(p), nil }
func (nullSink) Truncate(int64) error        { return nil }
func (nullSink) Sync() error                 { return nil }
func (nullSink) Close() error                { return nil }

// TestFailEveryJournalOperation: a full or broken disk on either side, for good or once, never makes two owners, and
// somebody can run.
func TestFailEveryJournalOperation(t *testing.T) {
	for _, name := range []string{source, destination} {
		for _, lasting := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/lasting=%v", name, lasting), func(t *testing.T) {
				t.Parallel()
				untilSuccess(t, func(p *pair, f *faults) {
					f.lasting = lasting
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
}

// TestFullJournalRefuses: a destination that can't journal that it accepts refuses, and may wait for the next one.
func TestFullJournalRefuses(t *testing.T) {
	for at, operation := range []string{"write", "sync"} {
		t.Run(operation, func(t *testing.T) {
			p := newPair(t)
			p.dst.journal = journal.New("/j", &faultySink{nullSink{}, &faults{at: at}}, nil)
			out := p.migrate()
			if !errors.As(out.sendErr, new(*RefusedError)) {
				t.Errorf("send: %v", out.sendErr)
			}
			var discarded *DiscardedError
			if !errors.As(out.gotErr, &discarded) || discarded.Accepted {
				t.Errorf("receive: %+v", out.gotErr)
			}
			p.verifyLaw(source)
		})
	}
}
