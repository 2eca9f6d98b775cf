package migration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/inject"
	"github.com/fineline-vmm/fineline/migration/journal"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// reverse is the destination's end of the reverse stream: it gives the source checkpoints of the guest, until the source
// wants no more, or is dead, or the guest ends here.
type reverse struct {
	s        *session
	saver    *saver
	interval time.Duration
	number   uint64 // of the newest checkpoint that was begun
	missed   uint64 // checkpoints since then that could not be taken
	unsure   bool   // it was sent whole, and may or may not have arrived
	done     chan struct{}

	mu      sync.Mutex // guards visitor
	visitor *visitor   // the newest connection of the source
	arrived chan struct{}
	leaving context.Context // ends when the guest does, or leaves
	leave   context.CancelFunc
	settled bool // the source knows the end, or is dead; good when done is closed
}

// errReleased: the source has let go of its guest and takes no more checkpoints.
var errReleased = errors.New("the source keeps the guest no longer")

// expectReverse prepares for checkpoints, if the source wants any.
func (s *session) expectReverse() error {
	if s.source.CheckpointMS == 0 {
		return nil
	}
	guest, ok := s.target.(Checkpointer)
	if !ok {
		return errors.New("checkpoints of a running guest are not to be had here")
	}
	saver, err := newSaver(guest, s.mem.mem, s.l.clock)
	if err != nil {
		return err
	}
	r := &reverse{
		s: s, saver: saver, interval: time.Duration(s.source.CheckpointMS) * time.Millisecond,
		arrived: make(chan struct{}, 1), done: make(chan struct{}),
	}
	r.leaving, r.leave = context.WithCancel(s.l.ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reverse = r
	return nil
}

// dropReverse ends what was prepared and never used.
func (s *session) dropReverse() {
	s.mu.Lock()
	r := s.reverse
	s.reverse = nil
	s.mu.Unlock()
	if r == nil {
		return
	}
	r.leave()
	close(r.done)
	r.closeConn(nil)
	if err := r.saver.close(); err != nil {
		s.log.Warnf("migration: %v", err)
	}
}

// reversal is the session's reverse, or nil. For any goroutine.
func (s *session) reversal() *reverse {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reverse
}

// join takes a connection of the source, in place of the one before. For any goroutine.
func (r *reverse) join(v *visitor) {
	if r.leaving.Err() != nil {
		if r.ended() {
			<-r.done
			if r.tellEnd(v) {
				r.s.settle()
			}
		}
		v.close()
		return
	}
	r.closeConn(v)
	select {
	case r.arrived <- struct{}{}:
	default: // it is told already
	}
}

// ended reports whether there was a guest here, which has ended or left. Precondition: leaving is over.
func (r *reverse) ended() bool { return r.s.over() && r.s.fate == wire.FateOwner }

// closeConn ends the connection in use and puts another, or none, in its place.
func (r *reverse) closeConn(next *visitor) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.visitor != nil {
		r.visitor.close()
	}
	r.visitor = next
}

func (r *reverse) conn() *visitor {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.visitor
}

// run gives checkpoints over one connection after the other. It runs in a goroutine of the Listener once the guest does.
func (r *reverse) run() {
	defer close(r.done)
	defer r.closeConn(nil)
	defer r.leave()
	err := r.await()
	for err == nil {
		v := r.conn()
		err = r.serve(v)
		if !errors.Is(err, errReleased) && r.leaving.Err() == nil {
			r.s.log.Debugf("migration: the source gets no checkpoints: %v", err)
			v.close()
			err = r.await()
		}
	}
	if r.settled = errors.Is(err, errReleased); !r.settled {
		r.journalEnd()
		if v := r.conn(); v != nil {
			r.settled = r.tellEnd(v)
		}
	}
	if err := r.saver.close(); err != nil {
		r.s.log.Warnf("migration: %v", err)
	}
}

// await returns when the source is on a new connection, or why it never will be.
func (r *reverse) await() error {
	if r.leaving.Err() != nil {
		return r.leaving.Err()
	}
	var dead <-chan struct{}
	if r.s.watch != nil {
		dead = r.s.watch.Done()
	}
	select {
	case <-r.arrived:
		return nil
	case <-dead:
		r.s.log.Warn("migration: the source that was kept is dead: the guest goes on without it")
		return errReleased
	case <-r.leaving.Done():
		return r.leaving.Err()
	}
}

// heard is what the source says on one connection.
type heard struct {
	acks   chan uint64
	ctx    context.Context // ends, with the cause, with the connection
	cancel context.CancelCauseFunc
	ended  chan struct{}
}

// hear reads until the connection ends.
func hear(parent context.Context, v *visitor) *heard {
	h := &heard{acks: make(chan uint64, 1), ended: make(chan struct{})}
	h.ctx, h.cancel = context.WithCancelCause(parent)
	go func() {
		defer close(h.ended)
		h.cancel(h.read(v))
	}()
	return h
}

func (h *heard) read(v *visitor) error {
	for {
		f, err := v.r.Next(wire.Of(wire.TypeCheckpointAck, wire.TypeDone))
		if err != nil {
			return connectionError(err)
		}
		if f.Type == wire.TypeDone {
			return errReleased
		}
		ack, err := wire.Decode[wire.Checkpoint](f)
		if err != nil {
			return err
		}
		select {
		case h.acks <- ack.Number:
		case <-h.ctx.Done():
			return context.Cause(h.ctx)
		}
	}
}

// ack waits for the next acknowledgement, on the connection that h hears.
func (h *heard) ack(v *visitor) (uint64, error) {
	silence := fmt.Errorf("%w: a checkpoint is not acknowledged for %v", ErrPeerSilent, v.timeout)
	ctx, cancel := patient(h.ctx, v.timeout, silence, v.conn)
	defer cancel()
	select {
	case n := <-h.acks:
		return n, nil
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// serve gives checkpoints over one connection. It returns why it ended.
func (r *reverse) serve(v *visitor) error {
	_ = v.conn.SetDeadline(time.Time{}) // fails only when closed, as will its use
	h := hear(r.leaving, v)
	defer func() {
		if r.leaving.Err() != nil { // the connection has still to say so
			_ = v.conn.SetReadDeadline(time.Unix(1, 0))
		} else {
			v.close()
		}
		h.cancel(net.ErrClosed) // it may wait with one more acknowledgement
		<-h.ended
	}()
	has, err := h.ack(v)
	if err != nil {
		return err
	}
	switch {
	case has > r.number:
		return fmt.Errorf("%w: the source has checkpoint %d, and the last one was %d", wire.ErrProtocol, has, r.number)
	case has == r.number && r.unsure:
		r.saver.acknowledged() // only that was lost
	default:
		r.saver.lost()
	}
	r.unsure = false
	for rest := r.interval; ; {
		select {
		case <-r.s.l.clock.After(rest):
		case <-h.ctx.Done():
			return context.Cause(h.ctx)
		}
		began := r.s.l.clock.Now()
		number := r.number
		period, err := r.checkpoint(h, v)
		took := r.s.l.clock.Now() - began
		switch {
		case err != nil && r.number == number && h.ctx.Err() == nil: // nothing was said of it
			if !errors.Is(err, memory.ErrMissing) {
				r.s.log.Debugf("migration: no checkpoint: %v", err)
			}
			r.missed++
			rest = max(r.interval/missedShare, checkpointPeriod(0, took, 0)-took)
		case err != nil:
			return err
		default:
			rest = period - took
		}
	}
}

// missedShare: after how much of the interval a checkpoint is tried again for which a vCPU was in the way.
const missedShare = 10

// checkpoint gives one, and returns how long after its beginning the next one may begin.
func (r *reverse) checkpoint(h *heard, v *visitor) (period time.Duration, err error) {
	begun := false
	begin := func() error {
		if begun {
			return nil
		}
		begun = true
		r.number++
		return r.say(v, func(w *wire.Writer) error {
			return w.Message(wire.TypeCheckpoint, wire.Checkpoint{Number: r.number})
		})
	}
	t, err := r.saver.take(h.ctx, func(b *wire.Batch) error {
		if err := begin(); err != nil {
			return err
		}
		return r.say(v, func(w *wire.Writer) error { return w.Batch(b) })
	})
	if err == nil {
		err = begin()
	}
	if err == nil {
		err = r.inject(inject.DestinationCheckpoint, v)
	}
	if err == nil {
		period = checkpointPeriod(r.interval, t.pause, t.collected)
		err = r.finish(h, v, t, period)
	}
	if err != nil {
		r.saver.lost()
		return 0, err
	}
	r.saver.acknowledged()
	r.unsure = false
	r.missed = 0
	return period, r.inject(inject.DestinationAcked, v)
}

// finish sends what follows the pages and waits until the source has it all.
func (r *reverse) finish(h *heard, v *visitor, t *taken, period time.Duration) error {
	if err := r.say(v, func(w *wire.Writer) error { return w.Bytes(wire.TypeState, t.state) }); err != nil {
		return err
	}
	r.unsure = true
	end := wire.CheckpointEnd{
		Number: r.number, Pages: t.sum.pages, ZeroPages: t.sum.zeroSent, Lines: t.sum.lines,
		PauseUS: uint64(t.pause.Microseconds()), Missed: r.missed, PeriodMS: uint64(period.Milliseconds()),
	}
	err := r.say(v, func(w *wire.Writer) error { return w.Message(wire.TypeCheckpointEnd, end) })
	if err != nil {
		return err
	}
	has, err := h.ack(v)
	if err == nil && has != r.number {
		err = fmt.Errorf("%w: checkpoint %d is acknowledged where %d was sent", wire.ErrProtocol, has, r.number)
	}
	return err
}

// say writes one frame to the source. A guest that leaves does not wait for a source that takes nothing.
func (r *reverse) say(v *visitor, frame func(*wire.Writer) error) error {
	return v.write(r.leaving, func() error { return frame(v.w) })
}

func (r *reverse) inject(point inject.Point, v *visitor) error {
	return r.s.l.plan.At(point, v.close)
}

// lastWord bounds how long the end of the guest waits for the answer of a source that keeps it.
const lastWord = time.Second

// tellEnd tells the source that there is nothing to go on with any more, and reports whether it knows.
func (r *reverse) tellEnd(v *visitor) bool {
	if r.say(v, func(w *wire.Writer) error { return w.Signal(wire.TypeEnded) }) != nil {
		return false
	}
	_ = v.conn.SetReadDeadline(time.Now().Add(lastWord)) // fails only when closed, as will the read
	for {
		f, err := v.r.Next(wire.Of(wire.TypeCheckpointAck, wire.TypeDone))
		if err != nil {
			return false
		}
		if f.Type == wire.TypeDone {
			return true
		}
	}
}

// journalEnd makes durable that no checkpoint may be resumed: before this process ends, or gives the guest away.
func (r *reverse) journalEnd() {
	if err := r.s.l.opts.Journal.Append(r.s.record(journal.Ended, "")); err != nil {
		r.s.log.Warnf("migration: a source that is kept may take this process's end for its death: %v", err)
	}
	// Nothing follows that could fail, so the Error action has nothing to do here.
	_ = r.s.inject(inject.DestinationEnded)
}

// awaitRelease waits, in a goroutine of the Listener, until no checkpoint is wanted any more.
func (s *session) awaitRelease(r *reverse) {
	defer s.stopWatch()
	defer s.visitor.close()
	<-r.done
	if r.settled {
		s.settle()
		s.l.shut()
	}
}

// EndCheckpoints tells a source that is kept that its guest leaves this process, and returns when no checkpoint of it is
// taken any more, or after some seconds if that source takes nothing: once another destination has accepted it
// (SendOptions.Accepted), and before it is touched. Sooner would give the protection up for a migration that is refused.
func (l *Listener) EndCheckpoints() {
	if r := l.leaveSource(); r != nil {
		<-r.done
	}
}

// DropCheckpoints is EndCheckpoints for a guest that ends in this process, and does not wait: Close does. It is to be called
// before the guest is stopped, since a checkpoint that is sent while it is gathered holds the guest as long as that takes.
// Memory that follows the guest still comes.
func (l *Listener) DropCheckpoints() { l.leaveSource() }

// leaveSource begins to end the checkpoints of a guest that runs here. It returns nil if there are none.
func (l *Listener) leaveSource() *reverse {
	s := l.current()
	if s == nil {
		return nil
	}
	r := s.reversal()
	if r == nil || !s.over() || s.fate != wire.FateOwner {
		return nil
	}
	r.leave()
	return r
}
