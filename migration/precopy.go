package migration

import (
	"context"
	"fmt"
	"time"

	"github.com/fineline-vmm/fineline/migration/inject"
	"github.com/fineline-vmm/fineline/migration/journal"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// precopy sends rounds while the guest runs, until the rule is content. It leaves in s.dirty what the
// guest wrote during the last one.
func (s *sender) precopy(ctx context.Context) error {
	if err := s.time.enter(stagePrecopy); err != nil {
		return err
	}
	began := s.clock.Now()
	if err := s.opts.Journal.Append(s.record(journal.Precopy, "")); err != nil {
		return err
	}
	s.fsync = s.clock.Now() - began
	if err := s.inject(inject.SourcePrecopy); err != nil {
		return err
	}
	if s.local() { // the memory is there already
		s.result.Converged = true
		s.report(true)
		return nil
	}
	s.postcopy = s.opts.Mode == wire.ModePostcopy
	if !s.postcopy {
		// Before the list: a page that is first touched after DataPages was asked is reported as dirty.
		if err := s.tracker.Start(); err != nil {
			return err
		}
	}
	pages, err := s.src.Memory().DataPages()
	if err != nil {
		return fmt.Errorf("cannot list the guest's pages: %w", err)
	}
	s.dirty = pages
	if s.postcopy {
		return nil
	}
	for {
		if err := s.liveRound(ctx); err != nil {
			return err
		}
		look := s.outlook()
		s.result.EstimatedDowntimeMS = milliseconds(look.downtime())
		switch s.decide(look) {
		case stopConverged:
			s.result.Converged = true
			return nil
		case slowDown:
			if s.opts.Mode != wire.ModeHybrid && s.slowDown() {
				continue
			}
			fallthrough
		case stopForced:
			if s.opts.Mode == wire.ModeHybrid {
				s.postcopy = true
				return nil
			}
			s.opts.Log.Warnf("migration: does not converge after %d rounds; pausing the guest for about %v",
				len(look.rounds), look.downtime().Round(time.Millisecond))
			return nil
		}
	}
}

// decide is the rule, and the timeout where that means to stop waiting.
func (s *sender) decide(look outlook) decision {
	d := s.opts.Rule.decide(look)
	if d != stopConverged && s.opts.TimeoutStrategy == TimeoutIgnore && s.time.elapsed() > s.opts.Timeout {
		return stopForced
	}
	return d
}

// stateOverhead is what pausing, saving and restoring take besides the round trips of READY and COMMIT
// and two durable records, "paused" here and "owner" there: a flat allowance.
const stateOverhead = time.Millisecond

func (s *sender) outlook() outlook {
	return outlook{
		rounds:         s.result.Rounds,
		remainingPages: s.result.lastRemaining(),
		overhead:       stateOverhead + 2*s.roundTrip + 2*s.fsync,
		throttledAt:    s.throttledAt,
	}
}

// liveRound sends s.dirty with the guest running, waits until the destination has stored it, and
// collects what was written meanwhile.
func (s *sender) liveRound(ctx context.Context) error {
	if err := s.inject(inject.SourceRound); err != nil {
		return err
	}
	began := s.clock.Now()
	s.reporter.roundBegan(began)
	sum, sent, err := s.sendRound(ctx)
	if err != nil {
		return err
	}
	asked := s.clock.Now()
	if _, err := s.link.expect(ctx, wire.TypeRoundAck, s.streams...); err != nil {
		return err
	}
	took := s.clock.Now() - began
	// The quickest answer is the nearest to the round trip: the others hold work of the destination.
	s.roundTrip = min(s.roundTrip, s.clock.Now()-asked)
	s.dirty.Clear()
	if err := s.tracker.Collect(s.dirty); err != nil {
		return err
	}
	s.addRound(sum, sent, took)
	return nil
}

// sendRound sends the pages in s.dirty over all streams and closes the round on each, on the main
// connection last. It returns what that came to, in pages and in bytes.
func (s *sender) sendRound(ctx context.Context) (tally, uint64, error) {
	joined, release := s.link.join(ctx)
	defer release()
	before := s.bytesSent()
	s.gathered.Store(0)
	if !s.paused { // else it would be downtime
		s.report(true)
	}
	var sum tally
	each, err := runPumps(joined, s.pumps, s.dirty)
	for i := len(each) - 1; i >= 0; i-- {
		sum.add(each[i])
		if err == nil {
			err = s.endRound(joined, i, each[i])
		}
	}
	return sum, s.bytesSent() - before, err
}

// endRound closes the round on one stream.
func (s *sender) endRound(ctx context.Context, stream int, sum tally) error {
	end := wire.RoundEnd{Round: len(s.result.Rounds) + 1, Pages: sum.pages, ZeroPages: sum.zeroSent, Paused: s.paused}
	return s.sendPart(ctx, stream, func(w *wire.Writer) error { return w.Message(wire.TypeRoundEnd, end) })
}

// sendPart writes to a stream; the first one is the main connection.
func (s *sender) sendPart(ctx context.Context, stream int, write func(*wire.Writer) error) error {
	if stream == 0 {
		return s.link.send(ctx, write)
	}
	return s.sendOn(ctx, s.streams[stream-1], write)
}

func (s *sender) addRound(sum tally, bytes uint64, took time.Duration) {
	s.dirtyLines(sum.lines)
	s.result.Rounds = append(s.result.Rounds, Round{
		Pages: sum.pages, CleanPages: sum.clean, ZeroPages: sum.zeroPages, Lines: sum.lines, Bytes: bytes,
		MS: milliseconds(took), RemainingPages: s.dirty.Len(), DirtyPagesPerS: perSecond(s.dirty.Len(), took),
		Paused: s.paused, took: took,
	})
	s.result.PagesSent += sum.pages
	s.result.ZeroPages += sum.zeroPages
	s.result.LinesSent += sum.lines
	if looked := sum.pages + sum.clean + sum.zeroPages; looked != 0 {
		s.base.judge(took / time.Duration(looked))
	}
	s.result.BaselineBytes = max(s.result.BaselineBytes, s.base.sizeBytes())
}

// writeBatch puts one batch on a stream. It runs in a pump's second goroutine.
func (s *sender) writeBatch(ctx context.Context, limit *throttle, stream int, b *wire.Batch) error {
	if err := s.inject(inject.SourceBatch); err != nil {
		return err
	}
	if !s.paused {
		if err := limit.wait(ctx, b.WireBytes()); err != nil {
			return err
		}
		s.report(false)
	}
	return s.sendPart(ctx, stream, func(w *wire.Writer) error { return w.Batch(b) })
}
