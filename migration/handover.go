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

// stopAndCopy pauses the guest and sends the rest of its pages and its state.
func (s *sender) stopAndCopy(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := s.time.enter(stagePausing); err != nil {
		return err
	}
	s.report(true)
	s.paused = true // before the call: a Pause that fails half way is undone by Resume
	if err := s.src.Pause(); err != nil {
		return fmt.Errorf("cannot pause the guest: %w", err)
	}
	before := s.bytesSent()
	if err := s.time.enter(stageStopCopy); err != nil {
		return err
	}
	if err := s.note(journal.Paused, ""); err != nil {
		return err
	}
	// Durable while the rest is sent and the destination restores: see "what is made durable when".
	s.durable = make(chan error, 1)
	go func() { s.durable <- s.opts.Journal.Sync() }()
	if err := s.inject(inject.SourcePaused); err != nil {
		return err
	}
	rest := s.sendRest
	if s.postcopy {
		rest = s.sendAbsent
	}
	state, err := rest(ctx)
	if err != nil {
		return err
	}
	if err := s.time.enter(stageState); err != nil {
		return err
	}
	s.stateSent = true
	err = s.link.send(ctx, func(w *wire.Writer) error { return w.Bytes(wire.TypeState, state) })
	s.result.BytesInDowntime = s.bytesSent() - before
	if s.postcopy {
		s.prepareServer()
	}
	return err
}

// fewPages are sent sooner than another goroutine wakes up.
const fewPages = 512

// sendRest sends what the guest wrote last, and returns its state. Where there is much to send the state is saved
// meanwhile.
func (s *sender) sendRest(ctx context.Context) ([]byte, error) {
	if s.local() {
		return s.saveState() // the memory is there
	}
	if s.result.lastRemaining() <= fewPages {
		state, err := s.saveState()
		if err != nil {
			return nil, err
		}
		return state, s.pausedRound(ctx)
	}
	sent := make(chan error, 1)
	go func() { sent <- s.pausedRound(ctx) }()
	state, err := s.saveState() // here, since a goroutine that is just made starts late
	if sendErr := <-sent; sendErr != nil || err != nil {
		return nil, errors.Join(sendErr, err)
	}
	// Saving may have stored to guest memory (design law 3): that goes behind.
	return state, s.lateRound(ctx)
}

func (s *sender) saveState() ([]byte, error) {
	state, err := s.src.SaveState()
	if err != nil {
		return nil, fmt.Errorf("cannot save the machine's state: %w", err)
	}
	return state, nil
}

// pausedRound sends everything that is dirty.
func (s *sender) pausedRound(ctx context.Context) error {
	// A guest that stands still is not re-armed: if it is resumed after all, all of this is reported again.
	if err := s.tracker.CollectStill(s.dirty); err != nil {
		return err
	}
	return s.sendPaused(ctx)
}

// lateRound sends what this process stored since. It costs nothing when there is nothing, the usual case.
func (s *sender) lateRound(ctx context.Context) error {
	if err := s.tracker.CollectOwn(s.dirty); err != nil || s.dirty.Len() == 0 {
		return err
	}
	return s.sendPaused(ctx)
}

func (s *sender) sendPaused(ctx context.Context) error {
	began := s.clock.Now()
	for _, p := range s.pumps {
		p.enc.final = true
	}
	sum, sent, err := s.sendRound(ctx)
	if err != nil {
		return err
	}
	s.dirty.Clear()
	s.addRound(sum, sent, s.clock.Now()-began)
	return nil
}

// prepareCommit waits until the destination holds everything. It is the last step that can be undone.
func (s *sender) prepareCommit(ctx context.Context) error {
	if err := s.note(journal.StateSent, ""); err != nil {
		return err
	}
	if err := s.inject(inject.SourceStateSent); err != nil {
		return err
	}
	_, err := s.link.expect(ctx, wire.TypeReady, s.streams...)
	if err == nil {
		err = s.awaitDurable(ctx)
	}
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	if err := s.time.enter(stageCommit); err != nil {
		return err
	}
	return s.note(journal.CommitSent, "")
}

// awaitDurable waits until "paused" is. A disk that hangs must not hold a paused guest: not all of the time allowed, and
// where that is ignored not for ever.
func (s *sender) awaitDurable(ctx context.Context) error {
	late := time.NewTimer(s.opts.PeerTimeout)
	defer late.Stop()
	select {
	case err := <-s.durable:
		return err
	case <-late.C:
		return fmt.Errorf("%w: the journal %s was not durable after %v; look at its disk", ErrTimeout, s.opts.Journal.Path(), s.opts.PeerTimeout)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// commitAndSettle sends COMMIT. From here on nothing can be undone by this side alone.
func (s *sender) commitAndSettle() error {
	ctx := context.Background()
	s.commit = true
	err := s.inject(inject.SourceCommitSent)
	if err == nil {
		err = s.link.send(ctx, func(w *wire.Writer) error { return w.Signal(wire.TypeCommit) })
	}
	if err == nil {
		var running *wire.Running
		if running, err = s.awaitRunning(ctx); err == nil {
			return s.handedOver(running)
		}
	}
	return s.settle(ctx, err)
}

func (s *sender) awaitRunning(ctx context.Context) (*wire.Running, error) {
	f, err := s.link.expect(ctx, wire.TypeRunning)
	if err != nil {
		return nil, err
	}
	return wire.Decode[wire.Running](f)
}

// handedOver ends the migration on this side: the guest is the destination's. In post-copy it goes on
// until the destination has all memory, too.
func (s *sender) handedOver(running *wire.Running) error {
	arrived := s.clock.Now()
	s.gaveAway = true
	s.unburden()
	if running.Failure == "" {
		if err := s.measure(running, arrived); err != nil {
			s.opts.Log.Errorf("migration: no downtime measured: %v", err)
		}
	}
	kept := s.keeper != nil && running.Failure == ""
	if err := s.follow(kept); err != nil || kept {
		return err
	}
	_ = s.link.send(context.Background(), func(w *wire.Writer) error { return w.Signal(wire.TypeDone) })
	if running.Failure != "" {
		return fmt.Errorf("%w: %s", ErrNotStarted, running.Failure)
	}
	return nil
}

// follow is what is left to do when the guest is the destination's: its memory, if that is not there yet, and to keep a
// copy or to let go.
func (s *sender) follow(kept bool) error {
	if kept {
		s.keep()
	}
	if s.postcopy {
		switch err := s.serve(); {
		case err != nil && kept:
			return s.serveEnded(err)
		case err != nil:
			s.release()
			return err
		}
	}
	if !kept {
		s.release()
	}
	return nil
}

// giveAway makes sure that the guest never runs here again.
func (s *sender) giveAway() {
	s.gaveAway = true
	s.unburden()
	s.release()
}

// release lets go of the guest that was given away.
func (s *sender) release() {
	s.released = true
	s.src.Release()
	if err := s.opts.Journal.Append(s.record(journal.Done, "")); err != nil {
		// The destination's record is the one that decides; this one only spares a question.
		s.opts.Log.Warnf("migration: %v", err)
	}
	// Nothing can fail any more, so the Error action has nothing to do here.
	_ = s.inject(inject.SourceDone)
}

// measure computes the downtime.
func (s *sender) measure(running *wire.Running, arrived time.Duration) error {
	at := time.Duration(running.MonotonicNS)
	s.result.DowntimeMeasured = MeasuredByClock
	// A peer's clock reading is input: outside of what is possible it counts for nothing.
	if !s.self.SameClock(s.peer.Process) || at > arrived || s.time.enterAt(stageRunning, at) != nil {
		s.result.DowntimeMeasured = MeasuredUpperBound
		if err := s.time.enterAt(stageRunning, arrived); err != nil {
			return err
		}
	}
	downtime, err := s.time.downtime()
	if err != nil {
		return err
	}
	s.result.DowntimeMS = milliseconds(downtime)
	return nil
}
