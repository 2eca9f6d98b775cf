package migration

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fineline-vmm/fineline/migration/inject"
	"github.com/fineline-vmm/fineline/migration/journal"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// ready holds a machine that could run and may not, until the law says what it is (rules 3 and 4).
func (s *session) ready(ctx context.Context) error {
	// A READY that does not arrive is a lost connection, which the read below finds.
	_ = s.visitor.send(wire.TypeReady, nil)
	for {
		_, err := s.word(ctx)
		if err == nil && s.l.ctx.Err() != nil {
			err = ErrStopped // whoever stopped this process did so before the commit
		}
		if err == nil {
			return s.own()
		}
		if !errors.Is(err, ErrConnectionLost) {
			return s.discard(err)
		}
		s.visitor.close()
		s.turns.Do(func() {
			s.log.Warn("migration: the connection is lost and the machine is ready; waiting for the source to say what it is")
		})
		switch outcome, err := s.withoutConnection(ctx, err); {
		case err != nil:
			return s.discard(err)
		case outcome == takeOver:
			s.tookOver = true
			return s.own()
		}
	}
}

// word waits for the source's. A source that is silent for long is as good as lost: on a new connection it can
// still say what it wants, and without one there is a doubt, which a human may end.
func (s *session) word(ctx context.Context) (wire.Frame, error) {
	silence := fmt.Errorf("%w: %w: no word after %s for %v", ErrConnectionLost, ErrPeerSilent, wire.TypeReady, s.l.opts.PeerTimeout)
	bounded, cancel := context.WithTimeoutCause(ctx, s.l.opts.PeerTimeout, silence)
	defer cancel()
	return s.next(bounded, wire.TypeCommit, wire.TypeAbort)
}

// outcome is how a wait without a connection ended.
type outcome int

const (
	reconnected outcome = iota
	takeOver
)

// errTakenBack: the source had resumed the guest before it died.
var errTakenBack = errors.New("the source took the guest back before it died")

// doubtGrace is how long a lost connection may stay so before it is called a doubt: a source that lives
// is back at once, and the death of one that does not is proved as fast.
const doubtGrace = time.Second

// withoutConnection waits for the source on a new connection, or for the proof that it is dead, or for
// a human.
func (s *session) withoutConnection(ctx context.Context, lost error) (outcome, error) {
	defer s.askForDecisions()()
	grace := time.NewTimer(doubtGrace)
	defer grace.Stop()
	var dead <-chan struct{}
	if s.watch != nil {
		dead = s.watch.Done()
	}
	for {
		select {
		case v := <-s.visits:
			s.replace(v)
			if s.l.tell(v, wire.Verdict{Fate: wire.FateReady}) == nil {
				return reconnected, nil
			}
		case <-dead:
			if s.paging != nil {
				return 0, fmt.Errorf("%w: the source died before it gave the guest away", ErrMemoryLost)
			}
			dead = nil // once is enough: a dead process adds nothing to its journal
			err := s.judgeTheDead()
			if err == nil || errors.Is(err, errTakenBack) {
				return takeOver, err
			}
			s.log.Warnf("migration: in doubt whether to run the guest: %v; look at the source's host and decide: %s", err, HowToDecide)
			lost = err
			grace.Reset(0)
		case <-grace.C:
			if s.l.opts.InDoubt != nil {
				s.l.opts.InDoubt(lost)
			}
		case d := <-s.decisions:
			if d == GuestIsThere || s.paging != nil {
				return 0, errors.New("decided by hand that the guest is not here") // or it is useless here
			}
			return takeOver, nil
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// judgeTheDead reads the journal of a source that is proved dead. It returns nil if the guest had not
// run there since its state was sent.
func (s *session) judgeTheDead() error {
	records, err := journal.ReadFile(s.source.Journal)
	if err != nil {
		return fmt.Errorf("the source is dead and its journal cannot be read: %w", err)
	}
	phase, ok := lastPhase(records, s.source.MachineID, s.source.Generation, journal.Source)
	switch phase {
	case journal.Paused, journal.StateSent, journal.CommitSent, journal.Done:
		return nil
	case journal.Cancelled, journal.Failed, journal.Resumed:
		return errTakenBack
	}
	if !ok {
		return fmt.Errorf("the source is dead and its journal %s does not know of this hand-over", s.source.Journal)
	}
	return fmt.Errorf("the source is dead and its journal ends with %q", phase)
}

// own takes the guest and lets it run. The record is the commit of the whole migration: from its
// durability on, the guest is here and nowhere else.
func (s *session) own() error {
	if err := s.l.opts.Journal.Append(s.record(journal.Owner, "")); err != nil {
		// If the record reached the file, the one of discard follows it there, and the last one counts. If
		// that can't be written either, the file may name an owner that is none: a source that asks here
		// takes its guest back, one that only finds the file gives it up. Never two.
		return s.discard(fmt.Errorf("cannot take the guest over: %w", err))
	}
	s.fate = wire.FateOwner
	if s.paging != nil {
		s.l.tasks.Go(s.bringMemory) // from its first instruction on the guest may wait for it
	}
	err := s.inject(inject.DestinationOwner)
	if err == nil {
		err = s.target.Run()
	}
	s.ranAt = s.l.clock.Now()
	s.running.MonotonicNS = int64(s.ranAt)
	if err != nil {
		s.running.Failure = wire.NewReason(err.Error(), false).Text
		err = fmt.Errorf("%w: %w", ErrNotStarted, err)
	}
	switch r := s.reversal(); {
	case r == nil:
	case err == nil:
		s.l.tasks.Go(r.run)
	default:
		s.dropReverse() // a guest that does not run has nothing new
	}
	// If it does not arrive the source asks, and is answered from s.running.
	_ = s.visitor.send(wire.TypeRunning, s.running)
	return err
}

// awaitDone waits, in a goroutine of the Listener, until the source knows that the guest is here: until
// then the Listener answers its questions.
func (s *session) awaitDone() {
	if r := s.reversal(); r != nil {
		s.awaitRelease(r)
		return
	}
	defer s.stopWatch()
	defer s.visitor.close()
	ctx, cancel := context.WithTimeoutCause(s.l.ctx, s.l.opts.PeerTimeout, ErrPeerSilent)
	defer cancel()
	if s.hearDone(ctx, s.visitor) == nil {
		return
	}
	var dead <-chan struct{}
	if s.watch != nil {
		dead = s.watch.Done()
	}
	select {
	case <-dead: // nobody is left who could ask
		s.settle()
		s.l.shut()
	case <-s.l.ctx.Done():
	}
}

// hearDone waits for the source's last word. For any goroutine.
func (s *session) hearDone(ctx context.Context, v *visitor) error {
	_, err := v.next(ctx, wire.Of(wire.TypeDone))
	if err == nil {
		s.settle()
		s.l.shut()
	}
	return err
}
