package migration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fineline-vmm/fineline/migration/wire"
)

// inflow is the destination's end of a stream: pages beside those of the main connection.
type inflow struct {
	visitor *visitor      // once it is there: whoever has not seen that holds session.mu
	there   chan struct{} // closed when it is
	apply   *applier
}

// expectStreams makes room for the connections that the source opens after ACCEPT. Nobody waits for them
// but who reads them, since a source that changes its mind says so on the main connection.
func (s *session) expectStreams() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inflow = nil
	for range s.source.Streams {
		s.inflow = append(s.inflow, &inflow{there: make(chan struct{}), apply: newApplier(s.mem)})
	}
}

// join takes a stream of this session's source. For any goroutine.
func (s *session) join(v *visitor) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	index := v.hello.Stream - 1
	if index < 0 || index >= len(s.inflow) || s.inflow[index].visitor != nil {
		return fmt.Errorf("stream %d is there already, or there are only %d", v.hello.Stream, len(s.inflow))
	}
	s.inflow[index].visitor = v
	close(s.inflow[index].there)
	return nil
}

// streams returns the connections beside the main one, there or not.
func (s *session) streams() []*inflow {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.inflow)
}

// closeStreams ends those that are there, and lets none follow. For any goroutine.
func (s *session) closeStreams() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, in := range s.inflow {
		if in.visitor != nil {
			in.visitor.close()
		}
	}
	s.inflow = nil
}

// streamReaders read one round from all streams, each in a goroutine of its own.
type streamReaders struct {
	running sync.WaitGroup
	ctx     context.Context
	cancel  context.CancelCauseFunc
	inflow  []*inflow

	mu    sync.Mutex
	first error
}

// errNoMoreRounds ends readers that have nothing to read.
var errNoMoreRounds = errors.New("no more rounds")

// readStreams begins. A failure ends ctx, but for a lost connection: nobody misses one on which nothing more comes, as when
// the source dies after the last round, and the main connection may hold what makes the machine whole. A source that
// lives finds the loss itself; in post-copy it connects again.
func (s *session) readStreams(ctx context.Context, cancel context.CancelCauseFunc) *streamReaders {
	r := &streamReaders{ctx: ctx, cancel: cancel, inflow: s.streams()}
	if s.source.Mode.AfterCommit() {
		r.inflow = r.inflow[:len(r.inflow)-1] // the last one is for what the guest waits for
	}
	for _, in := range r.inflow {
		r.running.Go(func() {
			if err := in.round(ctx); err != nil {
				r.fail(err)
			}
		})
	}
	return r
}

func (r *streamReaders) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	lost := errors.Is(err, ErrConnectionLost)
	if r.first == nil || !lost && errors.Is(r.first, ErrConnectionLost) {
		r.first = err
	}
	if !lost {
		r.cancel(err)
	}
}

// here waits until all streams are there. They are opened before the first round, so that at its end one that is
// not has timeout left.
func (r *streamReaders) here(timeout time.Duration) error {
	late := time.NewTimer(timeout)
	defer late.Stop()
	for i, in := range r.inflow {
		select {
		case <-in.there:
		case <-r.ctx.Done():
			return context.Cause(r.ctx)
		case <-late.C:
			return fmt.Errorf("%w: stream %d of %d was not opened for %v", ErrPeerSilent, i+1, len(r.inflow), timeout)
		}
	}
	return nil
}

// awaitEnds is wait for as long as something comes: the main connection has had its ROUND_END, which is the last.
func (r *streamReaders) awaitEnds(timeout time.Duration) error {
	ended := make(chan struct{})
	go func() {
		r.running.Wait()
		close(ended)
	}()
	late := time.NewTicker(timeout)
	defer late.Stop()
	for came := r.came(); ; {
		select {
		case <-ended:
			return r.wait()
		case <-late.C:
		}
		before := came
		if came = r.came(); came == before {
			r.fail(fmt.Errorf("%w: nothing came of what a round has on its streams for %v", ErrPeerSilent, timeout))
		}
	}
}

// came counts bytes. Precondition: all streams are there.
func (r *streamReaders) came() (bytes uint64) {
	for _, in := range r.inflow {
		bytes += in.visitor.read.Load()
	}
	return bytes
}

// wait returns when all streams have had their round.
func (r *streamReaders) wait() error {
	r.running.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.first
}

// finish is wait; idle readers, to whom no round came, are ended first. Their connections can be used
// further.
func (r *streamReaders) finish(idle bool) error {
	if idle {
		r.cancel(errNoMoreRounds)
	}
	err := r.wait()
	if idle && (errors.Is(err, errNoMoreRounds) || errors.Is(err, ErrConnectionLost)) {
		err = nil
	}
	for _, in := range r.inflow {
		if in.apply.open && err == nil {
			err = fmt.Errorf("%w: a stream has pages of a round that never was", wire.ErrProtocol)
		}
		select {
		case <-in.there:
			_ = in.visitor.conn.SetReadDeadline(time.Time{}) // fails only when closed, as will its use
		default: // it may come this very moment, and nobody has read it
		}
	}
	return err
}

// round reads to the end of one round.
func (in *inflow) round(ctx context.Context) error {
	select {
	case <-in.there:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for {
		f, err := in.visitor.next(ctx, wire.Of(wire.TypePages, wire.TypePagesZstd, wire.TypeRoundEnd))
		if err != nil {
			return err
		}
		if f.Type == wire.TypePages {
			if err := in.apply.pagesFrame(f.Payload); err != nil {
				return err
			}
			continue
		}
		end, err := wire.Decode[wire.RoundEnd](f)
		if err != nil {
			return err
		}
		return in.apply.roundEnd(end)
	}
}
