package migration

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/fineline-vmm/fineline/coherence/diff"
	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/inject"
	"github.com/fineline-vmm/fineline/migration/journal"
	"github.com/fineline-vmm/fineline/migration/postcopy"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// sendAbsent says which pages the destination lacks, in place of sending them, and returns the machine's state.
func (s *sender) sendAbsent(ctx context.Context) ([]byte, error) {
	// First the state: saving it may store to guest memory (design law 3).
	state, err := s.src.SaveState()
	if err != nil {
		return nil, fmt.Errorf("cannot save the machine's state: %w", err)
	}
	if err := s.collectAbsent(); err != nil {
		return nil, err
	}
	if err := s.sendTouched(ctx, state); err != nil {
		return nil, err
	}
	s.result.SwitchedToPostcopy = true
	absent := wire.AppendAbsent(nil, s.dirty.Range)
	if err := s.link.send(ctx, func(w *wire.Writer) error { return w.Bytes(wire.TypeAbsent, absent) }); err != nil {
		return nil, err
	}
	return state, s.inject(inject.SourceAbsent)
}

// prepareServer makes what serve needs: bitmaps of all memory, which takes a millisecond at 8 GiB. It is done while the destination
// restores the state, since the guest stands still.
func (s *sender) prepareServer() {
	s.server = postcopy.NewServer(s.src.Memory(), s.dirty, postcopy.ServerOptions{
		Encoder: s.absentEncoder(), Limit: s.beforePush, PeerTimeout: s.opts.PeerTimeout,
		Compress: s.opts.Compression == CompressionZstd,
	})
}

// beforePush is asked before each frame of the background.
func (s *sender) beforePush(ctx context.Context, sizeBytes int) error {
	if err := s.inject(inject.SourcePush); err != nil {
		return err
	}
	return s.limit.wait(ctx, sizeBytes)
}

// sendTouched sends those of s.dirty that the restore of the state looks for, and takes them out.
func (s *sender) sendTouched(ctx context.Context, state []byte) error {
	source, ok := s.src.(RestoreToucher)
	if !ok {
		return nil
	}
	pages, err := source.RestorePages(state)
	if err != nil {
		return fmt.Errorf("cannot tell which pages the machine's state needs: %w", err)
	}
	touched, rest := s.src.Memory().NewPageSet(), s.dirty
	for _, gpa := range pages {
		touched.Add(gpa)
	}
	touched.Intersect(rest)
	if touched.Len() == 0 {
		return nil
	}
	rest.Subtract(touched)
	s.dirty = touched
	err = s.sendPaused(ctx)
	s.dirty = rest
	return err
}

// collectAbsent leaves in s.dirty what the destination lacks: what was written since the last round or, where there was none, all
// data: precopy has listed it, and few pages were touched for the first time since.
func (s *sender) collectAbsent() error {
	if s.opts.Mode == wire.ModeHybrid {
		return s.tracker.Collect(s.dirty)
	}
	if err := s.src.Memory().AddDataPages(s.dirty); err != nil {
		return fmt.Errorf("cannot list the guest's pages: %w", err)
	}
	return nil
}

// absentEncoder is the encoder of the rounds before, so that of a page which was sent only the stale lines go.
func (s *sender) absentEncoder() postcopy.Encoder {
	encoders := sync.Pool{New: func() any {
		return &encoder{base: s.base, lines: s.opts.Granularity == GranularityLine, final: true} // nothing is compared again
	}}
	return func(gpa memory.GPA, page []byte, b *wire.Batch) {
		e := encoders.Get().(*encoder)
		defer encoders.Put(e)
		var sum tally
		e.encode(gpa, page, b, &sum)
		if sum.pages+sum.zeroSent != 0 {
			return
		}
		// Nothing has changed, and yet the destination waits for it.
		number := uint64(gpa) / memory.PageSize
		if sum.zeroPages != 0 {
			b.AppendZero(number)
			return
		}
		b.AppendLines(number, 1, page[:diff.LineBytes])
	}
}

// serve delivers the memory that the guest lacks at the destination, until the destination says that it
// has all. A lost connection is replaced. The guest never runs here again, so that nothing but the end of
// the destination ends this without success.
func (s *sender) serve() error {
	if err := s.note(journal.Serving, ""); err != nil {
		s.opts.Log.Warnf("migration: %v", err) // only a human would read it
	}
	s.serving.begin(s.clock.Now(), s.server.Left())
	err := s.inject(inject.SourceServing)
	if err == nil && len(s.streams) == 0 {
		err = ErrConnectionLost // the outcome was learnt over another connection, or from a human
	}
	s.lacked = s.server.Left()
	turns := rate.Sometimes{First: LogFirst, Interval: LogInterval} // the destination can make as many as it likes
	for {
		if err == nil {
			err = s.serveOnce()
		}
		if err == nil && s.time.now < stageRunning {
			return nil // it could not be started there
		}
		if err == nil {
			return s.time.enter(stageComplete)
		}
		if errors.Is(err, ErrGiveUp) {
			return err
		}
		turns.Do(func() {
			s.opts.Log.Warnf("migration: post-copy stands still, the guest is paused at the destination: %v", err)
		})
		s.lost(err)
		if err := s.reconnect(); err != nil {
			return err
		}
		s.result.RecoveredTimes++
		s.serving.recovered++
		err = s.inject(inject.SourceRecovered)
	}
}

// errComplete ends serving.
var errComplete = errors.New("the destination has all memory")

// serveOnce serves over the connections that there are.
func (s *sender) serveOnce() error {
	s.serving.connected(s.clock.Now(), s.server.Left())
	s.report(true)
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	var heard sync.WaitGroup
	heard.Go(func() { cancel(s.awaitComplete(ctx)) })
	heard.Go(func() { s.watchServing(ctx, cancel) })
	conns := make([]postcopy.Conn, len(s.streams))
	for i, st := range s.streams {
		conns[i] = postcopy.Conn{Conn: st.conn, Reader: st.r, Writer: st.w}
	}
	if len(conns) == 0 {
		heard.Wait()
		return completeOr(ctx)
	}
	last := len(conns) - 1
	err := s.server.Serve(ctx, conns[last], conns[:last])
	// A destination that ends closes these connections, and says why on the main one; which of them is heard first
	// is chance. One that has lost a connection closes the main one too.
	silent := time.AfterFunc(lastWordTimeout, func() { cancel(err) })
	heard.Wait()
	silent.Stop()
	return completeOr(ctx)
}

// lastWordTimeout is how long the main connection may bring nothing after a stream was lost.
const lastWordTimeout = time.Second

// servingInterval is how often Progress is called in post-copy.
const servingInterval = 2 * progressInterval

// watchServing reports, answers what humans want meanwhile, and ends the serving when somebody gives up.
func (s *sender) watchServing(ctx context.Context, cancel context.CancelCauseFunc) {
	tick := time.NewTicker(servingInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.report(true)
		case a := <-s.asked():
			a.refuse()
		case <-s.opts.GiveUp:
			cancel(errGaveUp)
			return
		case <-ctx.Done():
			return
		}
	}
}

var errGaveUp = fmt.Errorf("%w: what the guest lacks at the destination, only this process had", ErrGiveUp)

// lost notes why there is no connection.
func (s *sender) lost(err error) {
	s.serving.lost = err
	s.report(true)
}

// completeOr returns nil if ctx ended because all is done, else why it ended.
func completeOr(ctx context.Context) error {
	if cause := context.Cause(ctx); !errors.Is(cause, errComplete) {
		return cause
	}
	return nil
}

// awaitComplete returns errComplete, or why it will not come on this connection.
func (s *sender) awaitComplete(ctx context.Context) error {
	f, err := s.link.await(ctx, wire.TypeComplete)
	if err != nil {
		return err
	}
	done, err := wire.Decode[wire.Complete](f)
	if err != nil {
		return err
	}
	s.result.Faults, s.result.EndedThere = done.Faults, done.Ended
	return errComplete
}

// patientRetry is the wait between two attempts to reconnect when many have failed.
const patientRetry = 10 * time.Second

// Recovery asks a source in post-copy that has lost its connection to connect anew.
type Recovery struct {
	To   Address      // of the same destination; the zero Address: where it was
	Done chan<- error // gets what became of the attempt; capacity 1, and never full
}

func (r *Recovery) answer(err error) {
	if r != nil {
		r.Done <- err
	}
}

// reconnect replaces the connections. It never stops trying, but may be told of a better address.
func (s *sender) reconnect() error {
	deadline := s.clock.Now() + s.opts.ResolveTimeout
	for wait := s.retry.next(); ; wait = s.retry.next() {
		if s.clock.Now() > deadline {
			wait = patientRetry
			s.opts.Log.Warnf("migration: the guest waits at the destination for memory: %v; repair the link, or give another way to the same destination with fineline migrate --recover --to", s.serving.lost)
		}
		asked, err := s.pause(wait)
		if err != nil {
			return err
		}
		if s.destinationDead() {
			asked.answer(ErrDestinationDied)
			return ErrDestinationDied
		}
		err = s.reconnectFor(asked)
		asked.answer(err)
		if err == nil {
			return nil
		}
		s.opts.Log.Debugf("migration: cannot reconnect: %v", err)
		s.lost(err)
	}
}

// pause is before an attempt to reconnect; who asks for one ends it. Its error ends the attempts.
func (s *sender) pause(wait time.Duration) (asked *Recovery, err error) {
	select {
	case <-s.clock.After(wait):
	case r := <-s.opts.Recover:
		asked = &r
	case a := <-s.asked():
		if s.answerServing(a) {
			err = errByHand
		}
	case <-s.death():
		err = ErrDestinationDied
	case <-s.opts.GiveUp:
		err = errGaveUp
	}
	return asked, err
}

// reconnectFor tries once. An address that somebody gave is kept if it was of use.
func (s *sender) reconnectFor(asked *Recovery) error {
	if asked == nil || asked.To == (Address{}) {
		return s.reconnectOnce()
	}
	to, dial := s.to, s.dial
	s.to, s.dial = asked.To, s.opts.secured(asked.To, asked.To.dial)
	err := s.reconnectOnce()
	if err != nil {
		s.to, s.dial = to, dial
	} else if s.keeper != nil {
		s.keeper.redirect(s.dial)
	}
	return err
}

func (s *sender) reconnectOnce() error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), s.opts.PeerTimeout, ErrPeerSilent)
	defer cancel()
	if err := s.connect(ctx, wire.PurposeRecover); err != nil {
		return err
	}
	f, err := s.link.expect(ctx, wire.TypeAbsent)
	if err != nil {
		return err
	}
	absent := s.src.Memory().NewPageSet()
	if err := decodeAbsent(f.Payload, absent); err != nil {
		return err
	}
	if err := s.server.Reset(absent); err != nil {
		return err
	}
	if lacks := absent.Len(); lacks < s.lacked { // it never grows: Reset sees to that
		s.lacked = lacks
		s.retry.reset()
	}
	if absent.Len() == 0 {
		return nil // only COMPLETE was lost
	}
	return s.openStreams(ctx)
}

// decodeAbsent adds the pages of an ABSENT frame to a set. All must be RAM.
func decodeAbsent(payload []byte, into *memory.PageSet) error {
	const maxPages = 1 << 52
	return wire.DecodeAbsent(payload, maxPages, func(first, count uint64) error {
		if count > maxPages-first || !into.AddRange(memory.GPA(first*memory.PageSize), count*memory.PageSize) {
			return fmt.Errorf("%w: %d absent pages at %#x are not in the machine's memory", wire.ErrProtocol, count, first*memory.PageSize)
		}
		return nil
	})
}
