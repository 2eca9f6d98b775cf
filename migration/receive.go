package migration

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/time/rate"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/identity"
	"github.com/fineline-vmm/fineline/migration/inject"
	"github.com/fineline-vmm/fineline/migration/journal"
	"github.com/fineline-vmm/fineline/migration/postcopy"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// Receive waits for one machine and returns when its guest runs here. With a *DiscardedError nothing
// runs here and target was discarded if it was built; Receive may be called again with a new target.
// With ErrNotStarted the guest belongs here, paused. The end of ctx, or Close, discards what has not
// been committed; Close with ErrStopped. One Receive at a time.
func (l *Listener) Receive(ctx context.Context, target Target) (*Received, error) {
	if !l.begin() {
		return nil, &DiscardedError{Cause: ErrStopped}
	}
	defer l.tasks.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(l.ctx, func() { cancel(ErrStopped) })
	defer stop()
	select {
	case v := <-l.offers:
		return l.serve(ctx, v, target)
	case <-ctx.Done():
		return nil, &DiscardedError{Cause: context.Cause(ctx)}
	}
}

// serve receives the machine that a visitor offers.
func (l *Listener) serve(ctx context.Context, v *visitor, target Target) (*Received, error) {
	s := &session{
		l: l, target: target, source: v.hello, visitor: v,
		visits: make(chan *visitor), decisions: make(chan Decision), ended: make(chan struct{}),
		began: l.clock.Now(), log: l.opts.Log.WithField("machine", v.hello.MachineID),
		turns: rate.Sometimes{First: LogFirst, Interval: LogInterval},
	}
	l.setCurrent(s)
	err := s.run(ctx)
	close(s.ended)
	switch {
	case s.fate != wire.FateOwner:
		s.closeStreams()
		s.visitor.close()
		s.stopWatch()
	case s.paging == nil:
		s.closeStreams()
		l.tasks.Go(s.awaitDone)
	}
	if err != nil && s.fate != wire.FateOwner {
		// One that could not be journalled was refused.
		return nil, &DiscardedError{Accepted: s.accepted && !errors.As(err, new(*refusedError)), Cause: err}
	}
	return s.received(), err
}

// session is one hand-over at its destination. Its methods run in the goroutine of Receive unless
// they say otherwise.
type session struct {
	l      *Listener
	target Target
	source *wire.Hello
	watch  identity.Watch // of the source's process; nil when its death cannot be proved
	mem    *arrived
	apply  *applier // of the main connection

	paused   bool // a paused round has ended
	built    bool // Prepare has succeeded
	accepted bool // the journal may know of this session

	guesser *postcopy.Guesser // of paging, which it comes before
	paging  *paging           // nil before ABSENT; others may look when ended is closed
	reverse *reverse          // nil if the source is not kept; guarded by mu

	visits    chan *visitor // the source on a new connection
	decisions chan Decision
	ended     chan struct{} // closed when fate and running are final
	fate      wire.Fate
	running   wire.Running
	tookOver  bool

	began, ranAt time.Duration // by the clock
	log          logrus.FieldLogger
	turns        rate.Sometimes // of a source that comes and goes, of which the log says this many

	mu       sync.Mutex    // guards resolved, inflow and the replacement of visitor
	visitor  *visitor      // the connection in use
	inflow   []*inflow     // those beside it
	resolved chan struct{} // while decisions are taken; closed when they no longer are
}

// over reports that the session has its fate. For any goroutine.
func (s *session) over() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// concerns reports whether a visitor is this session's source. For any goroutine.
func (s *session) concerns(v *visitor) bool {
	return v.hello.MachineID == s.source.MachineID && v.hello.Generation == s.source.Generation &&
		v.hello.Process == s.source.Process
}

// interrupt ends the connection in use. For any goroutine.
func (s *session) interrupt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.visitor.close()
	for _, in := range s.inflow {
		if in.visitor != nil {
			in.visitor.close()
		}
	}
}

func (s *session) replace(v *visitor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.visitor.close()
	s.visitor = v
}

// askForDecisions opens the session to them until the returned function is called.
func (s *session) askForDecisions() (enough func()) {
	resolved := make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resolved = resolved
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.resolved = nil
		close(resolved)
	}
}

// decide takes a human's decision. Its error says why not: none is asked for, or something else settles the doubt first, or the
// source, which may run the guest, lives. For any goroutine.
func (s *session) decide(d Decision) error {
	s.mu.Lock()
	resolved, watch := s.resolved, s.watch // which is not changed while there is the other
	s.mu.Unlock()
	switch {
	case resolved == nil:
		return errNoDoubt
	case d == GuestIsHere && livesOn(watch):
		return livesError("source", s.source.Process)
	}
	select {
	case s.decisions <- d:
		return nil
	case <-resolved:
		return errNoDoubt
	}
}

// verdict is the session's fate. Precondition: ended is closed.
func (s *session) verdict() wire.Verdict {
	if s.fate == wire.FateOwner {
		return wire.Verdict{Fate: s.fate, Running: &s.running}
	}
	return wire.Verdict{Fate: wire.FateDiscarded}
}

func (s *session) run(ctx context.Context) error {
	if err := s.describing(ctx); err != nil {
		return s.discard(err)
	}
	if err := s.receiving(ctx); err != nil {
		return s.discard(err)
	}
	return s.ready(ctx)
}

// describing ends with a machine that is built and may be filled.
func (s *session) describing(ctx context.Context) error {
	id, generation := s.source.MachineID, s.source.Generation
	if last := s.l.opts.Journal.LastGeneration(id); generation <= last {
		return s.refuse(fmt.Errorf("generation %d of machine %s is not newer than %d, which this journal knows", generation, id, last))
	}
	var err error
	if s.watch, err = s.l.liveness.Watch(s.source.Process); err != nil {
		s.watch = nil
		s.log.Debugf("migration: %v", err)
	}
	s.l.perPeer.Do(func() {
		s.log.Infof("migration: machine %s arrives, generation %d, from build %q", id, generation, s.source.Build)
	})
	if err := s.visitor.send(wire.TypeHello, s.l.hello(s.visitor)); err != nil {
		return err
	}
	// Whoever says HELLO and no more must not keep others out.
	described, cancel := context.WithTimeoutCause(ctx, s.l.opts.PeerTimeout, ErrPeerSilent)
	defer cancel()
	f, err := s.next(described, wire.TypeDescription, wire.TypeAbort)
	if err != nil {
		return err
	}
	if s.source.Mode.AfterCommit() {
		if err := memory.CheckDemand(); err != nil {
			return s.refuse(err)
		}
	}
	mem, err := s.prepare(described, f.Payload)
	if err != nil {
		return s.refuse(err)
	}
	s.built = true
	if s.mem, err = s.arrive(mem); err != nil {
		return s.refuse(err)
	}
	if err := s.rehearseMemory(); err != nil {
		return s.refuse(err)
	}
	if err := s.expectReverse(); err != nil {
		return s.refuse(err)
	}
	s.apply = newApplier(s.mem)
	s.accepted = true
	if err := s.l.opts.Journal.Append(s.record(journal.Accepted, "")); err != nil {
		return s.refuse(err)
	}
	if err := s.inject(inject.DestinationAccepted); err != nil {
		return err
	}
	s.expectStreams()
	return s.visitor.send(wire.TypeAccept, nil)
}

// refusedError: nothing was accepted; the source has been told, or the cause says that it has not.
type refusedError struct{ cause error }

func (e *refusedError) Error() string { return fmt.Sprintf("refused: %v", e.cause) }
func (e *refusedError) Unwrap() error { return e.cause }

func (s *session) refuse(cause error) error {
	if err := s.visitor.send(wire.TypeRefuse, wire.NewReason(cause.Error(), false)); err != nil {
		cause = fmt.Errorf("%w; the source was not told: %w", cause, err)
	}
	return &refusedError{cause: cause}
}

// receiving takes rounds until the machine's state has come and is restored.
func (s *session) receiving(ctx context.Context) error {
	if err := s.note(journal.Receiving); err != nil {
		return err
	}
	if err := s.inject(inject.DestinationReceiving); err != nil {
		return err
	}
	if s.local() {
		return s.receivingState(ctx) // there are no rounds
	}
	for {
		last, err := s.round(ctx)
		switch {
		case err != nil:
			return err
		case last.Type == wire.TypeState:
			return s.restore(last.Payload)
		case last.Type == wire.TypeAbsent:
			// No page more before the commit: one that is absent would be waited for, and nobody brings it yet. So
			// nobody reads a stream by now.
			if err := s.expectMemory(last.Payload); err != nil {
				return err
			}
			return s.receivingState(ctx)
		}
	}
}

// receivingState takes the state where no round can come before it.
func (s *session) receivingState(ctx context.Context) error {
	f, err := s.next(ctx, wire.TypeState, wire.TypeAbort)
	if err != nil {
		return err
	}
	return s.restore(f.Payload)
}

// round takes one round from all connections, or returns what comes after the last one: the state, or what is absent. The
// streams are not read any more when it returns.
func (s *session) round(ctx context.Context) (last wire.Frame, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	streams := s.readStreams(ctx, cancel)
	defer func() {
		// What ends the wait of the main connection is not the cause if a stream failed.
		if streamErr := streams.finish(last.Type != 0 || err != nil); streamErr != nil && err == nil {
			last, err = wire.Frame{}, streamErr
		}
		cancel(nil)
	}()
	for {
		takes := []wire.Type{wire.TypePages, wire.TypePagesZstd, wire.TypeRoundEnd, wire.TypeAbort}
		if !s.apply.open && s.paused {
			takes = append(takes, wire.TypeState)
		}
		if !s.apply.open && s.source.Mode.AfterCommit() {
			takes = append(takes, wire.TypeAbsent)
		}
		f, err := s.next(ctx, takes...)
		if err != nil {
			return wire.Frame{}, err
		}
		switch f.Type {
		case wire.TypePages:
			err = s.apply.pagesFrame(f.Payload)
		case wire.TypeRoundEnd:
			return wire.Frame{}, s.roundEnd(f, streams)
		case wire.TypeAbsent, wire.TypeState:
			return f, nil
		}
		if err != nil {
			return wire.Frame{}, err
		}
	}
}

func (s *session) roundEnd(f wire.Frame, streams *streamReaders) error {
	end, err := wire.Decode[wire.RoundEnd](f)
	if err != nil {
		return err
	}
	if s.paused && !end.Paused {
		return fmt.Errorf("%w: a paused guest runs again in round %d", wire.ErrProtocol, end.Round)
	}
	if err := s.apply.roundEnd(end); err != nil {
		return err
	}
	if err := streams.here(s.l.opts.PeerTimeout); err != nil {
		return err
	}
	if err := streams.awaitEnds(s.l.opts.PeerTimeout); err != nil {
		return err
	}
	if err := s.inject(inject.DestinationRound); err != nil {
		return err
	}
	if end.Paused {
		s.paused = true
		return nil
	}
	return s.visitor.send(wire.TypeRoundAck, nil)
}

// restore makes the machine ready: from here on it may run, but for the law.
func (s *session) restore(state []byte) error {
	if r := s.reversal(); r != nil {
		if err := r.saver.begin(); err != nil { // what restoring stores the source has not
			return err
		}
	}
	if err := s.checkTouched(state); err != nil {
		return err
	}
	if err := s.target.RestoreState(state); err != nil {
		return fmt.Errorf("cannot restore the machine's state: %w", err)
	}
	if err := s.note(journal.Ready); err != nil {
		return err
	}
	return s.inject(inject.DestinationReady)
}

// next reads a frame. An ABORT is returned as an error, in every state that takes it.
func (s *session) next(ctx context.Context, types ...wire.Type) (wire.Frame, error) {
	f, err := s.visitor.next(ctx, wire.Of(types...))
	if err == nil && f.Type == wire.TypeAbort {
		err = abortError(f)
	}
	return f, err
}

// discard throws the machine away and says so, in this order. It returns the cause.
func (s *session) discard(cause error) error {
	s.fate = wire.FateDiscarded
	if s.accepted {
		record := s.record(journal.Discarded, wire.NewReason(cause.Error(), false).Text)
		if err := s.l.opts.Journal.Append(record); err != nil {
			// What counts is that there is no "owner", or that this process lives and says so.
			s.log.Warnf("migration: %v", err)
		}
		// Nothing follows that could fail, so the Error action has nothing to do here.
		_ = s.inject(inject.DestinationDiscarded)
	}
	if s.paging != nil {
		_ = s.paging.demand.Close()
	}
	s.dropReverse()
	if s.built {
		s.target.Discard()
	}
	var aborted *AbortedError
	var refused *refusedError
	switch {
	case errors.As(cause, &refused):
	case errors.Is(cause, errTakenBack):
		s.settle()
	case errors.As(cause, &aborted):
		s.settle() // the source decided so, and needs no answer
		_ = s.visitor.send(wire.TypeVerdict, wire.Verdict{Fate: wire.FateDiscarded})
	default:
		_ = s.visitor.send(wire.TypeAbort, wire.NewReason(cause.Error(), errors.Is(cause, context.Canceled)))
	}
	return cause
}

// settle notes that the source knows the end, or is dead.
func (s *session) settle() { s.l.opts.Journal.Settle(s.source.MachineID, s.source.Generation) }

func (s *session) record(phase journal.Phase, reason string) journal.Record {
	return journal.Record{
		MachineID: s.source.MachineID, Generation: s.source.Generation,
		Side: journal.Destination, Phase: phase, Note: reason,
	}
}

func (s *session) note(phase journal.Phase) error {
	return s.l.opts.Journal.Note(s.record(phase, ""))
}

// inject lets a test fail the migration here.
func (s *session) inject(point inject.Point) error {
	return s.l.plan.At(point, s.interrupt)
}

func (s *session) stopWatch() {
	if s.watch != nil {
		s.watch.Close()
	}
}

func (s *session) received() *Received {
	return &Received{
		MachineID: s.source.MachineID, Generation: s.source.Generation, Rounds: s.mem.round,
		Pages: s.mem.pages, ZeroPages: s.mem.zeroPages, Lines: s.mem.lines,
		TotalMS: milliseconds(s.ranAt - s.began), TookOver: s.tookOver, Postcopy: s.paging != nil,
	}
}
