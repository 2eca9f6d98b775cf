package migration

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	logrustest "github.com/sirupsen/logrus/hooks/test"

	"github.com/fineline-vmm/fineline/migration/identity"
	"github.com/fineline-vmm/fineline/migration/inject"
	"github.com/fineline-vmm/fineline/migration/postcopy"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// hastyClock is a clock whose waits are over at once, and are written down.
type hastyClock struct {
	hostClock
	mu    sync.Mutex
	waits []time.Duration
}

func (c *hastyClock) note(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waits = append(c.waits, d)
}

func (c *hastyClock) noted() []time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.waits)
}

func (c *hastyClock) Sleep(ctx context.Context, d time.Duration) error {
	c.note(d)
	return c.hostClock.Sleep(ctx, 0)
}

func (c *hastyClock) After(d time.Duration) <-chan time.Time {
	c.note(d)
	return c.hostClock.After(0)
}

// growing are the waits between attempts that bring nothing.
func growing(attempts int) []time.Duration {
	waits := []time.Duration{0}
	for wait := firstRetry; len(waits) < attempts; wait = min(2*wait, lastRetry) {
		waits = append(waits, wait)
	}
	return waits
}

// TestReverseStreamOfNothing: a destination that takes each connection and brings no checkpoint is asked less and less often.
func TestReverseStreamOfNothing(t *testing.T) {
	k, st, _ := hostileKeeper(t, 5*time.Second)
	_ = st.conn.Close()
	clock := &hastyClock{}
	k.s.clock = clock
	k.s.peer = &wire.Hello{Process: identity.Process{PID: 1}}
	const attempts = 12
	var answering sync.WaitGroup
	dialed := 0
	k.dial = func(context.Context) (net.Conn, error) {
		if dialed++; dialed == attempts {
			k.quit()
		}
		here, there := net.Pipe()
		answering.Go(func() { // greets, and hangs up
			defer there.Close()
			f, err := wire.NewReader(there).Next(wire.Of(wire.TypeHello))
			if err != nil {
				return
			}
			hello, err := wire.Decode[wire.Hello](f)
			if err != nil {
				return
			}
			hello.Process = k.s.peer.Process
			_ = wire.NewWriter(there).Message(wire.TypeHello, *hello)
		})
		return here, nil
	}
	k.run()
	answering.Wait()
	if got, want := clock.noted(), growing(attempts); !slices.Equal(got, want) {
		t.Errorf("waits %v, want %v", got, want)
	}
}

// fruitlessConn is a connection of the source that greets, and is lost with whatever is to follow.
type fruitlessConn struct {
	net.Conn
	greeted atomic.Bool
	barren  func() bool
}

func (c *fruitlessConn) Write(p []byte) (int, error) {
	if c.greeted.Swap(true) && c.barren() {
		c.Conn.Close()
		return 0, io.ErrClosedPipe
	}
	return c.Conn.Write(p)
}

// TestRecoveriesOfNothing: connections that are made and lost again, with no page in between, are made less and less often, and
// neither side's log grows by each.
func TestRecoveriesOfNothing(t *testing.T) {
	const turns = 3 * LogFirst
	p := newPair(t)
	p.opts.Mode, p.opts.Streams = wire.ModePostcopy, 2
	const conns = 3 // a turn: the main connection and two streams
	clock := &hastyClock{}
	p.src.hooks.clock = clock
	sourceLog, sourceLines := logrustest.NewNullLogger()
	destinationLog, destinationLines := logrustest.NewNullLogger()
	p.opts.Log, p.log = sourceLog, destinationLog
	var moved atomic.Bool
	var made atomic.Int64 // connections since then
	p.dst.onRun = func() error {
		moved.Store(true)
		return nil
	}
	p.wrap = func(side string, c net.Conn) net.Conn {
		if side != source {
			return c
		}
		if moved.Load() {
			made.Add(1)
		}
		return &fruitlessConn{Conn: c, barren: func() bool { return moved.Load() && made.Load() < conns*turns }}
	}
	p.listenUnix()
	out := p.migrate()
	if out.sendErr != nil || out.gotErr != nil {
		t.Fatalf("send: %v; receive: %v", out.sendErr, out.gotErr)
	}
	if err := <-p.complete; err != nil {
		t.Fatal(err)
	}
	if got, want := clock.noted(), growing(turns); len(got) < turns-1 || !slices.Equal(got[:turns-1], want[:turns-1]) {
		t.Errorf("waits %v, want %v", got, want)
	}
	stands := func(log *logrustest.Hook) (n int) {
		for _, e := range log.AllEntries() {
			if strings.Contains(e.Message, "guest is paused") {
				n++
			}
		}
		return n
	}
	for side, lines := range map[string]*logrustest.Hook{source: sourceLines, destination: destinationLines} {
		if n := stands(lines); n < LogFirst/2 || n > 2*LogFirst {
			t.Errorf("%d lines of the %s for %d turns", n, side, turns)
		}
	}
	p.verifyLaw(destination)
	p.verifyGuest()
}

// recovering is a session at whose destination a source connects to go on with the memory, and the far end of that connection.
func recovering(t *testing.T) (s *session, v *visitor, there net.Conn) {
	t.Helper()
	p := newPair(t)
	l, err := newListener(closedListener{}, ListenOptions{Journal: p.dst.journal, hooks: p.dst.hooks})
	if err != nil {
		t.Fatal(err)
	}
	old, gone := net.Pipe()
	here, there := net.Pipe()
	t.Cleanup(func() {
		gone.Close()
		there.Close()
		l.Close()
	})
	hello := hostileHello()
	hello.Purpose = wire.PurposeRecover
	s = &session{
		l: l, source: &hello, visitor: newVisitor(old, time.Second), ended: make(chan struct{}), log: l.opts.Log,
		paging: &paging{recoveries: make(chan *visitor), done: make(chan struct{})},
	}
	v = newVisitor(here, 5*time.Second)
	v.hello = &hello
	return s, v, there
}

// verifyClosed: nothing more comes.
func verifyClosed(t *testing.T, there net.Conn) {
	t.Helper()
	_ = there.SetReadDeadline(time.Now().Add(time.Second)) // else it would never end
	if _, err := there.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the connection was left open: %v", err)
	}
}

// TestRecoveredTooLate: a source that had not heard COMPLETE is told again, and its connection is closed.
func TestRecoveredTooLate(t *testing.T) {
	s, v, there := recovering(t)
	close(s.paging.done)
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.recovered(t.Context(), v)
	}()
	r := wire.NewReader(there)
	for _, want := range []wire.Type{wire.TypeHello, wire.TypeAbsent, wire.TypeComplete} {
		if _, err := r.Next(wire.Of(want)); err != nil {
			t.Fatal(err)
		}
	}
	if err := wire.NewWriter(there).Signal(wire.TypeDone); err != nil {
		t.Fatal(err)
	}
	<-served
	verifyClosed(t, there)
}

// verifyRefused: the far end of a connection is told why it is not taken, and that first of all.
func verifyRefused(t *testing.T, there net.Conn, why string) {
	t.Helper()
	f, err := wire.NewReader(there).Next(wire.Of(wire.TypeRefuse))
	if err != nil {
		t.Fatal(err)
	}
	if reason, err := wire.Decode[wire.Reason](f); err != nil || !strings.Contains(reason.Text, why) {
		t.Errorf("refused: %v, %v", reason, err)
	}
	verifyClosed(t, there)
}

// TestRecoveredTooSoon: a source that the guest can't go on with yet is told so.
func TestRecoveredTooSoon(t *testing.T) {
	s, v, there := recovering(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	go s.recovered(ctx, v)
	verifyRefused(t, there, "try again")
}

// TestReverseStreamOfNoGuest: a source whose guest is not here gets no greeting, behind which it could not be told.
func TestReverseStreamOfNoGuest(t *testing.T) {
	s, v, there := recovering(t)
	r := &reverse{s: s}
	r.leaving, r.leave = context.WithCancel(t.Context())
	r.leave()
	s.reverse = r
	go s.l.joinReverse(s, v)
	verifyRefused(t, there, "no guest here")
}

// TestRefusedUnheard: what the source could not be told is not logged as told.
func TestRefusedUnheard(t *testing.T) {
	s, _, _ := recovering(t)
	s.visitor.close()
	cause := errors.New("too large")
	if err := s.refuse(cause); !errors.Is(err, cause) || !strings.Contains(err.Error(), "the source was not told") {
		t.Errorf("%v", err)
	}
}

// TestLostWhenAllIsHere: a connection that is lost after the last page takes nothing away, though its source is dead.
func TestLostWhenAllIsHere(t *testing.T) {
	s, _, _ := recovering(t)
	plan, err := inject.Parse(string(inject.DestinationPaging) + "=error")
	if err != nil {
		t.Fatal(err)
	}
	s.l.plan = plan
	dead := make(chan struct{})
	close(dead)
	s.watch = fakeWatch(dead)
	s.fate = wire.FateOwner
	close(s.ended)
	mem := newMachine(t, &world{}, destination, testPages).mem
	here, err := mem.Demand(mem.NewPageSet())
	if err != nil {
		t.Skipf("no missing memory on this host: %v", err)
	}
	s.paging.demand, s.paging.pager = here, postcopy.NewPager(here, postcopy.PagerOptions{})
	if err := s.page(); err != nil {
		t.Fatal(err)
	}
	<-s.paging.done
	if s.paging.complete.Ended {
		t.Error("the source would be told that the guest has ended")
	}
}
