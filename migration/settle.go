package migration

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fineline-vmm/fineline/migration/identity"
	"github.com/fineline-vmm/fineline/migration/inject"
	"github.com/fineline-vmm/fineline/migration/journal"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// Waits between two questions to a destination that does not answer.
const (
	firstRetry = 10 * time.Millisecond
	lastRetry  = time.Second
	// abortRetries: a destination that is not told waits for us, and reads our journal if we die.
	abortRetries = 3
)

// abandon undoes a migration that was not committed: the guest runs here again (rule 2). It returns
// the cause, or an InDoubtError when even that cannot be decided alone.
func (s *sender) abandon(ctx context.Context, cause error) error {
	var aborted *AbortedError
	if errors.As(cause, &aborted) {
		s.discarded = true
	}
	phase, point := journal.Failed, inject.SourceFailed
	s.result.Status = StatusFailed
	cancelled := isCancel(ctx, cause)
	if cancelled {
		phase, point = journal.Cancelled, inject.SourceCancelled
		s.result.Status = StatusCancelled
		if errors.Is(cause, context.Canceled) {
			cause = &cancelledError{cause}
		}
	}
	reason := wire.NewReason(cause.Error(), cancelled)
	// Before the guest runs: a destination that finds us dead reads here that it must not (rule 3).
	noted := s.note(phase, reason.Text)
	told := false
	if noted != nil && s.stateSent {
		told = true
		if s.tellAbort(reason, false); !s.discarded {
			return s.inDoubt(fmt.Errorf("%w; and %w", cause, noted))
		}
	}
	// The guest must go on whatever happens here, so the Error action has nothing to do.
	_ = s.inject(point)
	if s.paused {
		if err := s.src.Resume(); err != nil {
			cause = fmt.Errorf("%w; and the guest could not be resumed: %w", cause, err)
		} else {
			s.paused = false
		}
	}
	if err := s.opts.Journal.Sync(); noted != nil || err != nil {
		s.opts.Log.Warnf("migration: %v", errors.Join(noted, err))
	}
	s.unburden()
	if !told {
		var refused *RefusedError
		s.tellAbort(reason, errors.As(cause, &refused))
	}
	return cause
}

// tellAbort lets the destination know, unless it has refused, and learns whether it has thrown the guest away.
func (s *sender) tellAbort(reason wire.Reason, refused bool) {
	if s.peer == nil || s.discarded || refused {
		return
	}
	if s.abortNow(reason) == nil {
		s.discarded = true
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*abortGrace)
	defer cancel()
	// A destination that hears of the end of the connection discards, but for a ready one, which waits to be told. On a
	// link that stands still it hears nothing: a new connection tells it.
	for try := 0; !s.discarded && try < abortRetries; try++ {
		verdict, err := s.ask(ctx, reason)
		if err == nil && verdict.Fate == wire.FateDiscarded {
			s.discarded = true
			return
		}
		if s.clock.Sleep(ctx, firstRetry<<try) != nil {
			return
		}
	}
}

// abortNow tells the destination over the connection that there is, if that is good for anything.
func (s *sender) abortNow(reason wire.Reason) error {
	if s.link == nil || s.link.ctx.Err() != nil || s.link.torn.Load() {
		return ErrConnectionLost
	}
	ctx, cancel := context.WithTimeout(context.Background(), abortGrace)
	defer cancel()
	return s.abortOver(ctx, reason)
}

// abortOver sends ABORT over the current connection and waits for the answer.
func (s *sender) abortOver(ctx context.Context, reason wire.Reason) error {
	if err := s.link.send(ctx, func(w *wire.Writer) error { return w.Message(wire.TypeAbort, reason) }); err != nil {
		return err
	}
	for {
		f, err := s.link.expect(ctx, wire.TypeVerdict)
		var other *unexpectedError
		if errors.As(err, &other) {
			continue // an answer to what we sent before
		}
		if err != nil {
			return err
		}
		verdict, err := wire.Decode[wire.Verdict](f)
		if err != nil {
			return err
		}
		if verdict.Fate != wire.FateDiscarded {
			return fmt.Errorf("%w: the destination answers ABORT with %s", wire.ErrProtocol, verdict.Fate)
		}
		return nil
	}
}

// ask finds out what became of the hand-over. A destination that is ready is told to commit if this
// side has said so before, else to abort for the given reason; the answer is then the outcome.
func (s *sender) ask(ctx context.Context, reason wire.Reason) (*wire.Verdict, error) {
	if s.destinationDead() {
		return s.askTheDead()
	}
	if err := s.connect(ctx, wire.PurposeResolve); err != nil {
		return nil, err
	}
	f, err := s.link.expect(ctx, wire.TypeVerdict)
	if err != nil {
		return nil, err
	}
	verdict, err := wire.Decode[wire.Verdict](f)
	if err != nil || verdict.Fate != wire.FateReady {
		return verdict, err
	}
	if !s.commit {
		return &wire.Verdict{Fate: wire.FateDiscarded}, s.abortOver(ctx, reason)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	// From here on the destination may run the guest: whoever stops asking must first hear its answer.
	s.commanded = true
	ctx = context.WithoutCancel(ctx)
	if err := s.link.send(ctx, func(w *wire.Writer) error { return w.Signal(wire.TypeCommit) }); err != nil {
		return nil, err
	}
	running, err := s.awaitRunning(ctx)
	if err != nil {
		return nil, err
	}
	return &wire.Verdict{Fate: wire.FateOwner, Running: running}, nil
}

// death is closed when the destination is proved dead; nil if that can't be.
func (s *sender) death() <-chan struct{} {
	if s.watch == nil {
		return nil
	}
	return s.watch.Done()
}

func (s *sender) destinationDead() bool {
	select {
	case <-s.death():
		return true
	default:
		return false
	}
}

// livesOn reports whether a process is seen to live, though it may be stopped, or cut off; one that was just killed has a moment
// to be found dead. False: it is dead, or out of sight.
func livesOn(w identity.Watch) bool {
	if w == nil {
		return false
	}
	select {
	case <-w.Done():
		return false
	case <-time.After(lastBytes):
		return true
	}
}

// livesError: the word of a human against what can be seen.
func livesError(side string, p identity.Process) error {
	return fmt.Errorf("the %s's process %d on this host lives, though it does not answer, and its guest may run: end it first (kill -9 %[2]d)",
		side, p.PID)
}

// askTheDead reads the journal of a destination that is proved dead. Nobody can add to it any more. A
// journal that does not know of this hand-over is not the right one, and proves nothing.
func (s *sender) askTheDead() (*wire.Verdict, error) {
	records, err := journal.ReadFile(s.peer.Journal)
	if err != nil {
		return nil, fmt.Errorf("the destination is dead and its journal cannot be read: %w", err)
	}
	phase, ok := lastPhase(records, s.opts.MachineID, s.generation, journal.Destination)
	switch {
	case !ok:
		return nil, fmt.Errorf("the destination is dead and its journal %s does not know of this hand-over", s.peer.Journal)
	case phase == journal.Owner, phase == journal.Ended: // it ran there, whatever became of it
		return &wire.Verdict{Fate: wire.FateOwner}, nil
	}
	return &wire.Verdict{Fate: wire.FateDiscarded}, nil
}

// lastPhase is the last phase that one side journalled of one hand-over.
func lastPhase(records []journal.Record, machineID string, generation uint64, side journal.Side) (phase journal.Phase, ok bool) {
	for _, r := range journal.Select(records, machineID, generation) {
		if r.Side == side {
			phase, ok = r.Phase, true
		}
	}
	return phase, ok
}

// settle finds out what became of a COMMIT whose answer is missing (rule 5), within the time allowed.
func (s *sender) settle(ctx context.Context, cause error) error {
	s.result.Status, s.commanded = "", false
	s.settling = true
	defer func() { s.settling = false }()
	s.report(true)
	deadline := s.clock.Now() + s.opts.ResolveTimeout
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		var aborted *AbortedError
		if errors.As(cause, &aborted) {
			return s.abandon(ctx, cause) // its "discarded" was journalled before it said so
		}
		verdict, err := s.ask(ctx, wire.NewReason(cause.Error(), false))
		switch {
		case err != nil:
			cause = err
		case verdict.Fate == wire.FateDiscarded:
			s.discarded = true
			return s.abandon(ctx, fmt.Errorf("the destination discarded the guest: %w", cause))
		case verdict.Fate == wire.FateOwner && verdict.Running == nil && s.keeper != nil:
			if err := s.judgeOwner(); err != nil && !errors.Is(err, errEnded) {
				cause = err // for a human, whose word is taken in doubt and not in here
				break
			}
			s.gaveAway = true
			s.unburden()
			s.keep()
			return s.serveEnded(ErrDestinationDied)
		case verdict.Fate == wire.FateOwner && verdict.Running == nil:
			s.giveAway()
			return ErrDestinationDied
		case verdict.Fate == wire.FateOwner:
			return s.handedOver(verdict.Running)
		default:
			cause = fmt.Errorf("the destination answers %s", verdict.Fate)
		}
		if s.clock.Now() >= deadline {
			return s.inDoubt(cause)
		}
		if err := s.clock.Sleep(ctx, wait); err != nil {
			return s.inDoubt(err)
		}
	}
}

func (s *sender) inDoubt(cause error) error {
	return &InDoubtError{MachineID: s.opts.MachineID, Generation: s.generation, Cause: cause, sender: s}
}

// Retry asks again what became of the hand-over, until it is known, ctx ends or ResolveTimeout is over.
// It returns what Send would have returned. It may be called as often as it returns an InDoubtError,
// but not by two goroutines at once.
func (e *InDoubtError) Retry(ctx context.Context) (*Result, error) {
	return e.sender.finish(e.sender.settle(ctx, e.Cause))
}

// handBy gives the guest away on a human's word.
func (s *sender) handBy() error {
	s.result.Status = ""
	s.gaveAway = true
	s.unburden()
	return s.follow(s.keeper != nil)
}

// Decision is a human's answer to a doubt.
type Decision int

// The decisions.
const (
	// GuestIsHere: the destination does not run the guest and never will. The guest is resumed here.
	GuestIsHere Decision = iota + 1
	// GuestIsThere: the destination owns the guest. It never runs here again.
	GuestIsThere
)

// ResolveInDoubt carries out a human's decision: a wrong "here" makes two guests of one. Its error says that the decision
// could not be carried out. "Here" is refused where the destination's process is seen to live, and when the
// last Retry found the destination ready and sent COMMIT again without hearing more: then Retry first.
func ResolveInDoubt(e *InDoubtError, d Decision) (*Result, error) {
	s := e.sender
	switch d {
	case GuestIsHere:
		if s.commanded {
			return nil, errJustCommitted
		}
		if livesOn(s.watch) {
			return nil, livesError("destination", s.peer.Process)
		}
		s.discarded, s.byHand = true, true
		cause := fmt.Errorf("decided by hand that the guest stays here: %w", e.Cause)
		result, err := s.finish(s.abandon(context.Background(), cause))
		if !s.paused {
			err = nil
		}
		return result, err
	case GuestIsThere:
		s.byHand = true
		return s.finish(s.handBy())
	}
	return nil, fmt.Errorf("unknown decision %d", d)
}
