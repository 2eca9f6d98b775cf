package migration

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/fineline-vmm/fineline/migration/identity"
	"github.com/fineline-vmm/fineline/migration/inject"
	"github.com/fineline-vmm/fineline/migration/journal"
)

// deaths is a Liveness under the test's control: a process is dead when the test says so.
type deaths struct {
	mu   sync.Mutex
	dead map[int]chan struct{}
}

func (d *deaths) of(pid int) chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead == nil {
		d.dead = map[int]chan struct{}{}
	}
	if d.dead[pid] == nil {
		d.dead[pid] = make(chan struct{})
	}
	return d.dead[pid]
}

func (d *deaths) Watch(p identity.Process) (identity.Watch, error) {
	return fakeWatch(d.of(p.PID)), nil
}

type fakeWatch chan struct{}

func (w fakeWatch) Done() <-chan struct{} { return w }
func (w fakeWatch) Close()                {}

// unprovable is the Liveness of a peer on another host.
type unprovable struct{}

func (unprovable) Watch(identity.Process) (identity.Watch, error) { return nil, identity.ErrUnprovable }

// volatileSink is a journal's file without the wait for the disk.
type volatileSink struct{ *os.File }

func (volatileSink) Sync() error { return nil }

// side is one process of a pair: what it holds, and how it vanishes.
type side struct {
	*machine
	journal *journal.Journal
	process identity.Process
	hooks   hooks

	mu    sync.Mutex
	conns []net.Conn
	gone  bool
	ln    net.Listener
}

// vanish is SIGKILL as far as the rest of the world can see it.
func (s *side) vanish() {
	s.die()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = true
	for _, c := range s.conns {
		c.Close()
	}
	if s.ln != nil {
		s.ln.Close()
	}
	s.journal.Close()
}

// own remembers a connection as one that ends with the process.
func (s *side) own(c net.Conn) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		c.Close()
		return nil, errDead
	}
	s.conns = append(s.conns, c)
	return c, nil
}

func (s *side) isGone() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gone
}

// pair is a source and a destination in one test process.
type pair struct {
	t      *testing.T
	world  *world
	deaths *deaths
	src    *side
	dst    *side
	// source, if set, is src with more methods.
	source Source
	opts   SendOptions
	l      *Listener
	// listenTLS is the destination's part of opts.TLS.
	listenTLS *tls.Config
	// wrap, if set, puts faults into every connection, of both sides.
	wrap func(side string, c net.Conn) net.Conn
	// inDoubt, if set, is the destination's.
	inDoubt  func(error)
	stalled  func(error)
	log      logrus.FieldLogger // the destination's; nil: the standard one
	complete chan error         // gets why memory is complete, or never will be
	ctx      context.Context
	giveUp   func() // ends ctx, and a post-copy
	// compared is the outcome of comparing the two memories when the destination runs.
	compared error
}

const testPages = 256

func newPair(t *testing.T) *pair {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	t.Cleanup(func() { cancel(nil) })
	gaveUp := make(chan struct{})
	giveUp := sync.OnceFunc(func() {
		cancel(nil)
		close(gaveUp)
	})
	p := &pair{t: t, world: &world{}, deaths: &deaths{}, ctx: ctx, giveUp: giveUp, complete: make(chan error, 1)}
	p.src = p.newSide(source, 101)
	p.dst = p.newSide(destination, 202)
	if err := p.src.boot(); err != nil {
		t.Fatal(err)
	}
	p.dst.onRun = func() error {
		if p.opts.Mode.AfterCommit() {
			return nil // it is compared when it is there
		}
		p.compared = differences(p.src.mem, p.dst.mem)
		return nil
	}
	p.opts = SendOptions{
		MachineID: "guest", Journal: p.src.journal, GiveUp: gaveUp,
		PeerTimeout: 5 * time.Second, ResolveTimeout: time.Second,
	}
	return p
}

func (p *pair) newSide(name string, pid int) *side {
	p.t.Helper()
	path := filepath.Join(p.t.TempDir(), "journal")
	file, err := os.Create(path)
	if err != nil {
		p.t.Fatal(err)
	}
	j := journal.New(path, volatileSink{file}, nil)
	s := &side{machine: newMachine(p.t, p.world, name, testPages), journal: j}
	s.process = identity.Process{BootID: "boot", PIDNamespace: 1, TimeNamespace: 1, PID: pid, StartTicks: 1}
	s.hooks = hooks{clock: hostClock{}, liveness: p.deaths, plan: &inject.Plan{}, self: &s.process}
	p.t.Cleanup(func() {
		s.end()
		s.journal.Close()
	})
	return s
}

// plan sets what fails, on both sides.
func (p *pair) plan(text string) {
	p.t.Helper()
	plan, err := inject.Parse(text)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, s := range []*side{p.src, p.dst} {
		s.hooks.plan = plan.WithKill(func() {
			s.vanish()
			if s == p.src {
				p.giveUp() // a dead process does not wait for its network
			}
			close(p.deaths.of(s.process.PID))
		})
		p.t.Cleanup(s.hooks.plan.Release)
	}
}

// listen opens the destination's address.
func (p *pair) listen(address string) {
	p.t.Helper()
	at, err := ParseAddress(address)
	if err != nil {
		p.t.Fatal(err)
	}
	ln, err := at.listen(p.ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	p.dst.ln = ln
	l, err := newListener(&sideListener{Listener: ln, pair: p}, ListenOptions{
		Journal: p.dst.journal, TLS: p.listenTLS, PeerTimeout: p.opts.PeerTimeout, InDoubt: p.inDoubt, hooks: p.dst.hooks,
		Stalled: p.stalled, Complete: func(err error) { p.complete <- err }, Log: p.log,
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.l = l
	p.t.Cleanup(func() { l.Close() })
}

// listenUnix opens it on a Unix socket.
func (p *pair) listenUnix() {
	p.t.Helper()
	p.listen("unix:" + filepath.Join(p.t.TempDir(), "s"))
}

// stranger returns a connection to the destination that is not the source's, until the test ends.
func (p *pair) stranger() net.Conn {
	p.t.Helper()
	conn, err := p.l.Address().dial(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { conn.Close() })
	return conn
}

// receiveInBackground yields the error of one Receive.
func (p *pair) receiveInBackground(ctx context.Context) <-chan error {
	received := make(chan error, 1)
	go func() {
		_, err := p.l.Receive(ctx, p.dst)
		received <- err
	}()
	return received
}

type sideListener struct {
	net.Listener
	pair *pair
}

func (l *sideListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if l.pair.wrap != nil {
		c = l.pair.wrap("destination", c)
	}
	return l.pair.dst.own(c)
}

func (p *pair) dial(ctx context.Context) (net.Conn, error) {
	if p.src.isGone() {
		return nil, errDead
	}
	c, err := p.l.Address().dial(ctx)
	if err != nil {
		return nil, err
	}
	if p.wrap != nil {
		c = p.wrap("source", c)
	}
	return p.src.own(c)
}

// outcomes of one migration.
type outcomes struct {
	sent     *Result
	sendErr  error
	got      *Received
	gotErr   error
	received bool // Receive has returned
}

// migrate runs both sides. A destination that still waits when the source has ended gets patience, and
// then its context ends, as when its operator stops it.
func (p *pair) migrate() outcomes {
	p.t.Helper()
	if p.l == nil {
		p.listenUnix()
	}
	p.opts.hooks = p.src.hooks
	p.opts.hooks.dial = p.dial
	var out outcomes
	ctx, cancel := context.WithCancel(p.t.Context())
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		out.got, out.gotErr = p.l.Receive(ctx, p.dst)
	}()
	var src Source = p.src
	if p.source != nil {
		src = p.source
	}
	out.sent, out.sendErr = Send(p.ctx, src, p.l.Address(), p.opts)
	// A destination that has accepted nothing goes on waiting for a source, and rightly.
	if len(p.dst.journal.Records(p.opts.MachineID, out.sent.Generation)) == 0 {
		cancel()
	}
	select {
	case <-done:
		out.received = true
	case <-time.After(2 * time.Second):
		cancel()
		<-done
	}
	return out
}

// verifyLaw checks what must hold after anything: nobody ran beside another, and one of those wanted (a
// side's name, or nobody) runs the guest now.
func (p *pair) verifyLaw(wanted ...string) {
	p.t.Helper()
	p.world.await(wanted)
	runner, violation := p.world.who()
	if violation != "" {
		p.t.Errorf("two runners: %s", violation)
	}
	if !slices.Contains(wanted, runner) {
		p.t.Errorf("%q runs the guest, want %q", runner, wanted)
	}
	if p.compared != nil {
		p.t.Errorf("the destination's memory is not the source's: %v", p.compared)
	}
}

func isDiscarded(err error) bool {
	var discarded *DiscardedError
	return errors.As(err, &discarded)
}
