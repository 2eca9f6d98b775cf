package migration

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fineline-vmm/fineline/migration/wire"
)

// inflow is the destination's end of a stream: pages beside those of the main connection.
type inflow struct {
	visitor *visitor
	apply   *applier
}

// awaitStreams takes the connections that the source opens after ACCEPT.
func (s *session) awaitStreams(ctx context.Context) error {
	if s.source.Streams == 0 {
		return nil
	}
	// A source that is gone, or has changed its mind, is heard on the main connection only when
	// something is read there; until then a limit must do.
	ctx, cancel := context.WithTimeoutCause(ctx, s.l.opts.PeerTimeout, ErrPeerSilent)
	defer cancel()
	streams := make([]*inflow, s.source.Streams)
	for missing := len(streams); missing > 0; {
		select {
		case v := <-s.joins:
			index := v.hello.Stream - 1
			if index < 0 || index >= len(streams) || streams[index] != nil {
				s.l.refuse(v, fmt.Sprintf("stream %d of %d is there already or does not exist", v.hello.Stream, len(streams)))
				continue
			}
			streams[index] = &inflow{visitor: v, apply: newApplier(s.mem)}
			s.addStream(streams[index])
			if err := v.send(wire.TypeHello, s.l.hello(v)); err != nil {
				return err
			}
			missing--
		case <-ctx.Done():
			return fmt.Errorf("%d of %d streams have not come: %w", missing, len(streams), context.Cause(ctx))
		}
	}
	return nil
}

func (s *session) addStream(in *inflow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inflow = append(s.inflow, in)
}

func (s *session) closeStreams() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, in := range s.inflow {
		in.visitor.close()
	}
}

// streamReaders read one round from all streams, each in a goroutine of its own.
type streamReaders struct {
	running sync.WaitGroup
	cancel  context.CancelCauseFunc
	inflow  []*inflow

	mu    sync.Mutex
	first error
}

// errNoMoreRounds ends readers that have nothing to read.
var errNoMoreRounds = errors.New("no more rounds")

// readStreams begins. The first failure ends ctx.
func (s *session) readStreams(ctx context.Context, cancel context.CancelCauseFunc) *streamReaders {
	r := &streamReaders{cancel: cancel, inflow: s.inflow}
	for _, in := range s.inflow {
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
	if r.first == nil {
		r.first = err
		r.cancel(err)
	}
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
	for _, in := range r.inflow {
		if in.apply.open && err == nil {
			err = fmt.Errorf("%w: a stream has pages of a round that never was", wire.ErrProtocol)
		}
		_ = in.visitor.conn.SetReadDeadline(time.Time{})
	}
	if errors.Is(err, errNoMoreRounds) {
		return nil
	}
	return err
}

// round reads to the end of one round.
func (in *inflow) round(ctx context.Context) error {
	for {
		f, err := in.visitor.next(ctx, wire.Of(wire.TypePages, wire.TypeRoundEnd))
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
