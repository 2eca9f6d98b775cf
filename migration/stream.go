package migration

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/fineline-vmm/fineline/migration/wire"
)

// stream is the source's end of one more connection, for pages. One goroutine uses it at a time. The
// destination says nothing on it between its HELLO and the switch to post-copy, so nobody reads.
type stream struct {
	*pace
	r       *wire.Reader
	w       *wire.Writer
	written *atomic.Uint64
}

func newStream(conn net.Conn, timeout time.Duration, written *atomic.Uint64) *stream {
	s := &stream{pace: &pace{conn: conn, timeout: timeout}, r: wire.NewReader(conn), written: written}
	s.w = wire.NewWriter(s)
	return s
}

// Write counts and passes on; only the stream's wire.Writer calls it.
func (s *stream) Write(p []byte) (int, error) {
	n, err := s.pace.Write(p)
	s.written.Add(uint64(n))
	return n, err
}

// send runs one write. A peer that takes nothing for the timeout is lost; when ctx ends, the frame
// in flight has abortGrace to be finished.
func (s *stream) send(ctx context.Context, write func(*wire.Writer) error) error {
	if s.torn.Load() {
		return ErrConnectionLost
	}
	if err := s.pace.send(ctx, func() error { return write(s.w) }); err != nil {
		return connectionError(err)
	}
	return nil
}

// openOthers opens the connections beside the main one. A destination that has given up meanwhile takes none, and says why on
// that one.
func (s *sender) openOthers(ctx context.Context) error {
	err := s.openStreams(ctx)
	if err == nil && s.keeper != nil {
		err = s.keeper.open(ctx)
	}
	if err != nil && ctx.Err() == nil {
		return s.link.verdictOr(err)
	}
	return err
}

// openStreams opens the connections for pages, after ACCEPT.
func (s *sender) openStreams(ctx context.Context) error {
	for i := range s.streamCount() {
		if err := s.openStream(ctx, i+1); err != nil {
			return fmt.Errorf("stream %d of %d: %w", i+1, s.streamCount(), err)
		}
	}
	return nil
}

// streamCount is how many connections there are beside the main one: for pages, and in post-copy the last
// one for what the guest waits for.
func (s *sender) streamCount() int {
	if s.opts.Mode.AfterCommit() {
		return s.opts.Streams
	}
	return s.opts.Streams - 1
}

func (s *sender) openStream(ctx context.Context, index int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.opts.PeerTimeout, ErrPeerSilent)
	defer cancel()
	conn, err := s.dial(ctx)
	if err != nil {
		return err
	}
	st := newStream(conn, s.opts.PeerTimeout, &s.streamed)
	s.streams = append(s.streams, st) // closed with the link, whatever comes
	hello := s.hello(wire.PurposeStream)
	hello.Stream = index
	return s.greetStream(ctx, st, hello)
}

// greetStream exchanges HELLO over a connection beside the main one.
func (s *sender) greetStream(ctx context.Context, st *stream, hello wire.Hello) error {
	if err := st.send(ctx, func(w *wire.Writer) error { return w.Message(wire.TypeHello, hello) }); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = st.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	f, err := st.r.Next(wire.Of(wire.TypeHello, wire.TypeRefuse))
	if err != nil {
		return connectionError(err)
	}
	if err := endingError(f); err != nil {
		return err
	}
	_, err = s.answers(f, hello.Purpose)
	return err
}

// sendOn is a stream's send; a failure gives way to what the destination says on the main connection.
func (s *sender) sendOn(ctx context.Context, st *stream, write func(*wire.Writer) error) error {
	err := st.send(ctx, write)
	if err == nil || !st.torn.Load() {
		return err
	}
	return s.link.verdictOr(err)
}
