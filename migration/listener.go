package migration

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/time/rate"

	"github.com/fineline-vmm/fineline/migration/journal"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// ListenOptions configures Listen. Journal is required.
type ListenOptions struct {
	Journal     *journal.Journal // of this process; the caller closes it after the Listener
	Build       string           // of this program, shown to the peer
	TLS         *tls.Config      // from TLSFiles, for a tcp: address; nil: plain text
	PeerTimeout time.Duration    // for the first frame of a connection, and for a write; 0: 10 s
	// InDoubt, if set, is called when a machine is ready here, the connection to its source is lost, and
	// neither a new one nor a proof of the source's death has come soon after. It must not block.
	InDoubt func(cause error)
	// Predictor guesses what a guest in post-copy will need next; one of predict.Names, "": auto.
	Predictor string
	// Stalled, if set, is called when the connection to a running guest's memory is lost and the guest paused, and with
	// nil when it goes on; Complete, when all memory is here, or with why it never will be. They must not block.
	Stalled  func(cause error)
	Complete func(error)
	Log      logrus.FieldLogger

	hooks hooks
}

// Listener is a destination's address. It outlives the connection on which a machine arrives: a source
// that lost that connection asks here what became of its guest.
type Listener struct {
	ln   net.Listener
	opts ListenOptions
	hooks

	offers chan *visitor // sources that want to migrate, to Receive
	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	// perPeer limits what strangers can make the log grow by; the first few are said in full.
	perPeer rate.Sometimes

	mu      sync.Mutex
	session *session // the newest
	closing bool     // no Receive begins any more
}

// greetTimeout bounds how long a silent connection holds one of maxVisitors places: a source speaks first
// and at once, and must not wait behind whoever scans ports.
const greetTimeout = 2 * time.Second

// maxVisitors bounds the connections that are being greeted at one time.
const maxVisitors = 64

// What a peer can cause is logged the first LogFirst times, then once in LogInterval; callers do the same.
const (
	LogFirst    = 20
	LogInterval = 10 * time.Second
)

// Listen binds the address. The caller closes the Listener. After a machine has arrived and its source
// has confirmed that it knows, the Listener stops listening by itself.
func Listen(ctx context.Context, at Address, opts ListenOptions) (*Listener, error) {
	ln, err := at.listen(ctx)
	if err != nil {
		return nil, err
	}
	l, err := newListener(ln, opts)
	if err != nil {
		_ = ln.Close()
		return nil, err
	}
	if opts.TLS == nil && at.Exposed() {
		l.opts.Log.Warn(ClearTextWarning(at))
	}
	return l, nil
}

func newListener(ln net.Listener, opts ListenOptions) (*Listener, error) {
	if opts.Journal == nil {
		return nil, errors.New("migration without a journal")
	}
	setDefault(&opts.PeerTimeout, DefaultPeerTimeout)
	setDefault(&opts.Predictor, "auto")
	if opts.Log == nil {
		opts.Log = logrus.StandardLogger()
	}
	if err := opts.hooks.complete(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &Listener{
		ln: ln, opts: opts, hooks: opts.hooks, offers: make(chan *visitor), ctx: ctx, cancel: cancel,
		perPeer: rate.Sometimes{First: LogFirst, Interval: LogInterval},
	}
	l.tasks.Go(l.accept)
	return l, nil
}

// Address is where the Listener listens; a port 0 is replaced by the real one.
func (l *Listener) Address() Address {
	a := l.ln.Addr()
	return Address{network: a.Network(), address: a.String()}
}

// shut stops listening and ends every wait.
func (l *Listener) shut() {
	l.mu.Lock()
	l.closing = true
	l.mu.Unlock()
	l.cancel()
	_ = l.ln.Close()
}

// begin counts a Receive among what Close waits for; closing keeps that from racing the wait.
func (l *Listener) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closing {
		l.tasks.Add(1)
	}
	return !l.closing
}

// Close stops listening, makes a Receive under way discard its machine unless it owns it, and waits
// until that has returned and all connections are closed.
func (l *Listener) Close() error {
	l.shut()
	l.tasks.Wait()
	return nil
}

func (l *Listener) accept() {
	slots := make(chan struct{}, maxVisitors)
	for {
		conn, err := l.ln.Accept()
		if l.ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			return
		}
		if err != nil {
			// Out of descriptors, most likely: somebody else's problem, which may pass.
			l.opts.Log.Warnf("migration: cannot accept a connection: %v", err)
			if l.clock.Sleep(l.ctx, acceptRetry) != nil {
				return
			}
			continue
		}
		slots <- struct{}{}
		l.tasks.Go(func() {
			defer func() { <-slots }()
			l.greet(newVisitor(l.secured(conn), l.opts.PeerTimeout))
		})
	}
}

const acceptRetry = 100 * time.Millisecond

// greet reads who is there, and hands the connection on or closes it.
func (l *Listener) greet(v *visitor) {
	ctx, cancel := context.WithTimeoutCause(l.ctx, l.opts.PeerTimeout, ErrPeerSilent)
	defer cancel()
	first, cancelFirst := context.WithTimeoutCause(ctx, greetTimeout, ErrPeerSilent)
	defer cancelFirst()
	if err := v.greet(first); err != nil {
		var version *wire.VersionError
		if errors.As(err, &version) {
			_ = v.send(wire.TypeRefuse, wire.NewReason(err.Error(), false))
		}
		l.perPeer.Do(func() { l.opts.Log.Infof("migration: ignored a connection: %v", err) })
		v.close()
		return
	}
	if v.hello.Purpose == wire.PurposeResolve {
		l.resolve(ctx, v)
		return
	}
	switch v.hello.Purpose {
	case wire.PurposeStream, wire.PurposeReverse:
		l.join(v)
		return
	case wire.PurposeRecover:
		l.goOn(ctx, v)
		return
	}
	if l.busy() {
		l.refuse(v, "another migration to this process is under way")
		return
	}
	select {
	case l.offers <- v:
	case <-ctx.Done():
		l.refuse(v, "this process does not wait for a machine")
	}
}

// join hands a stream to the session that expects it.
func (l *Listener) join(v *visitor) {
	s := l.current()
	if v.hello.Purpose == wire.PurposeReverse {
		l.joinReverse(s, v)
		return
	}
	if s == nil || !s.concerns(v) || s.over() && s.paging == nil {
		l.refuse(v, "no such migration is under way here")
		return
	}
	l.admit(v, func(v *visitor) {
		if err := s.join(v); err != nil {
			l.perPeer.Do(func() { l.opts.Log.Infof("migration: ignored a connection: %v", err) })
			v.close() // after HELLO nothing more is said on a stream
		}
	})
}

// joinReverse hands the connection for checkpoints to the newest session.
func (l *Listener) joinReverse(s *session, v *visitor) {
	var r *reverse
	if s != nil && s.concerns(v) {
		r = s.reversal()
	}
	if r == nil || r.leaving.Err() != nil && !r.ended() {
		l.refuse(v, "no guest here gives checkpoints to this source")
		return
	}
	l.admit(v, r.join)
}

// admit answers a visitor and hands it over. The answer goes first: who takes the visitor may write to it at once.
func (l *Listener) admit(v *visitor, join func(*visitor)) {
	if err := v.send(wire.TypeHello, l.hello(v)); err != nil {
		v.close()
		return
	}
	join(v)
}

// goOn hands a source on a new connection to the session that lost its memory's.
func (l *Listener) goOn(ctx context.Context, v *visitor) {
	s := l.current()
	if s == nil || !s.concerns(v) || !s.over() || s.paging == nil {
		l.refuse(v, "no guest waits for memory here")
		return
	}
	s.recovered(ctx, v)
}

func (l *Listener) refuse(v *visitor, reason string) {
	_ = v.send(wire.TypeRefuse, wire.NewReason(reason, false))
	v.close()
}

// hello is this side's, in answer to the visitor's.
func (l *Listener) hello(v *visitor) wire.Hello {
	return wire.Hello{
		Purpose: v.hello.Purpose, Build: l.opts.Build, MachineID: v.hello.MachineID, Generation: v.hello.Generation,
		Process: *l.self, Journal: l.opts.Journal.Path(),
		Mode: v.hello.Mode, Streams: v.hello.Streams, Stream: v.hello.Stream, CheckpointMS: v.hello.CheckpointMS,
	}
}

func (l *Listener) current() *session {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.session
}

func (l *Listener) setCurrent(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.session = s
}

func (l *Listener) busy() bool {
	s := l.current()
	return s != nil && !s.over()
}

// resolve answers a source that asks for the fate of its hand-over.
func (l *Listener) resolve(ctx context.Context, v *visitor) {
	s := l.current()
	if s != nil && s.concerns(v) {
		s.interrupt() // the newest connection counts
		select {
		case s.visits <- v:
			return
		case <-s.ended:
			l.answer(ctx, v, s.verdict())
		case <-ctx.Done():
			v.close()
		}
		return
	}
	l.answer(ctx, v, l.journalled(v))
}

// journalled is the answer about a hand-over before the newest. A record of a former process that is
// neither owner nor discarded settles nothing.
func (l *Listener) journalled(v *visitor) wire.Verdict {
	records := l.opts.Journal.Records(v.hello.MachineID, v.hello.Generation)
	phase, _ := lastPhase(records, v.hello.MachineID, v.hello.Generation, journal.Destination)
	switch phase {
	case journal.Owner:
		return wire.Verdict{Fate: wire.FateOwner, Running: &wire.Running{}}
	case journal.Discarded:
		return wire.Verdict{Fate: wire.FateDiscarded}
	}
	return wire.Verdict{Fate: wire.FateUnknown}
}

// tell is the whole answer to a HELLO that asks.
func (l *Listener) tell(v *visitor, verdict wire.Verdict) error {
	if err := v.send(wire.TypeHello, l.hello(v)); err != nil {
		return err
	}
	return v.send(wire.TypeVerdict, verdict)
}

// answer tells the verdict. A source that learns of an owner confirms, and nothing is left to do.
func (l *Listener) answer(ctx context.Context, v *visitor, verdict wire.Verdict) {
	defer v.close()
	if l.tell(v, verdict) != nil {
		return
	}
	if verdict.Fate != wire.FateOwner {
		return
	}
	if _, err := v.next(ctx, wire.Of(wire.TypeDone)); err == nil {
		l.opts.Journal.Settle(v.hello.MachineID, v.hello.Generation)
		l.shut()
	}
}

// ResolveInDoubt carries out a human's decision about a machine that is ready here and whose source
// is gone without proof: GuestIsHere runs it, GuestIsThere discards it. A wrong "here" makes two guests of one; it is refused
// where the source's process is seen to live, and nothing checks it elsewhere.
func (l *Listener) ResolveInDoubt(d Decision) error {
	if d != GuestIsHere && d != GuestIsThere {
		return errors.New("unknown decision")
	}
	s := l.current()
	if s == nil {
		return errNoDoubt
	}
	return s.decide(d)
}

var errNoDoubt = errors.New("no incoming machine is in doubt")
