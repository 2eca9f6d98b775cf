package migration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/fineline-vmm/fineline/migration/wire"
)

// link is the source's end of one connection. One goroutine writes; a goroutine of the link reads, so
// that REFUSE, ABORT or a lost connection interrupts whatever the writer does.
type link struct {
	*pace   // its timeout is also for an answer
	w       *wire.Writer
	written atomic.Uint64 // bytes
	lent    []int         // descriptors that go with the next write

	ctx    context.Context // ends, with the cause, when the peer refuses or aborts, or the connection ends
	cancel context.CancelCauseFunc
	frames chan wire.Frame
	ended  chan struct{} // the reader has returned
}

// toSource is every frame that a destination ever sends.
var toSource = wire.Of(wire.TypeHello, wire.TypeAccept, wire.TypeRefuse, wire.TypeRoundAck, wire.TypeReady,
	wire.TypeRunning, wire.TypeAbort, wire.TypeVerdict, wire.TypeAbsent, wire.TypeComplete)

func newLink(conn net.Conn, timeout time.Duration) *link {
	l := &link{pace: &pace{conn: conn, timeout: timeout}, frames: make(chan wire.Frame, 1), ended: make(chan struct{})}
	l.w = wire.NewWriter(l)
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	go l.read()
	return l
}

// Write counts and passes on; only the link's wire.Writer calls it.
func (l *link) Write(p []byte) (int, error) {
	n, err := l.put(p)
	l.written.Add(uint64(n))
	return n, err
}

func (l *link) read() {
	defer close(l.ended)
	r := wire.NewReader(l.conn)
	for {
		f, err := r.Next(toSource)
		if err == nil {
			err = endingError(f)
		}
		if err != nil {
			l.cancel(connectionError(err))
			return
		}
		f.Payload = bytes.Clone(f.Payload)
		select {
		case l.frames <- f:
		case <-l.ctx.Done():
			return
		}
	}
}

// endingError is a frame by which the peer ends the migration, as an error; nil: it is another one.
func endingError(f wire.Frame) error {
	switch f.Type {
	case wire.TypeAbort:
		return abortError(f)
	case wire.TypeRefuse:
		reason, err := wire.Decode[wire.Reason](f)
		if err != nil {
			return err
		}
		return &RefusedError{Reason: reason.Text}
	}
	return nil
}

func abortError(f wire.Frame) error {
	reason, err := wire.Decode[wire.Reason](f)
	if err != nil {
		return err
	}
	return &AbortedError{Reason: reason.Text, Cancelled: reason.Cancelled}
}

// connectionError gives what a broken connection says one class.
func connectionError(err error) error {
	var version *wire.VersionError
	switch {
	case isEnding(err), errors.As(err, &version), errors.Is(err, wire.ErrProtocol):
		return err
	case refusesTrust(err) != nil:
		return refusesTrust(err)
	case errors.Is(err, io.EOF):
		return ErrConnectionLost
	}
	return fmt.Errorf("%w: %w", ErrConnectionLost, err)
}

// isEnding: the peer has said why it ends the migration.
func isEnding(err error) bool {
	return errors.As(err, new(*AbortedError)) || errors.As(err, new(*RefusedError))
}

// close ends the connection and waits for the reader.
func (l *link) close() {
	_ = l.conn.Close()
	l.cancel(ErrConnectionLost)
	<-l.ended
}

// join returns a context that ends with ctx or with the link, with the cause of either.
func (l *link) join(ctx context.Context) (context.Context, func()) {
	joined, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(l.ctx, func() { cancel(context.Cause(l.ctx)) })
	return joined, func() {
		stop()
		cancel(nil)
	}
}

// send runs one write. A peer that takes nothing for the link's timeout is lost; when ctx ends, the
// frame in flight has abortGrace to be finished.
func (l *link) send(ctx context.Context, write func(*wire.Writer) error) error {
	if l.torn.Load() {
		return l.failure(ErrConnectionLost)
	}
	if err := l.pace.send(ctx, func() error { return write(l.w) }); err != nil {
		return l.failure(connectionError(err))
	}
	return nil
}

// failure prefers what the peer said last over what the failed write says: "aborted, because" over
// "broken pipe".
func (l *link) failure(err error) error {
	if !l.torn.Load() {
		return err // refused before a byte was written: our own doing
	}
	return l.verdictOr(err)
}

// verdictOr waits a moment for the end of the connection, and returns why the peer ended it, or err.
func (l *link) verdictOr(err error) error {
	select {
	case <-l.ended:
	case <-time.After(abortGrace):
		return err
	}
	if cause := context.Cause(l.ctx); isEnding(cause) || refusesTrust(cause) != nil {
		return cause
	}
	return err
}

// expect returns the next frame, which must be of the given type. It must come within the link's timeout from when the last byte
// moved that is before it: of the link, and of the streams beside it.
func (l *link) expect(ctx context.Context, want wire.Type, beside ...*stream) (wire.Frame, error) {
	conns := []net.Conn{l.conn}
	for _, st := range beside {
		conns = append(conns, st.conn)
	}
	silence := fmt.Errorf("%w: no %s for %v", ErrPeerSilent, want, l.timeout)
	ctx, cancel := patient(ctx, l.timeout, silence, conns...)
	defer cancel()
	return l.await(ctx, want)
}

// await is expect for as long as ctx lasts.
func (l *link) await(ctx context.Context, want wire.Type) (wire.Frame, error) {
	select {
	case f := <-l.frames:
		return accept(f, want)
	case <-l.ctx.Done():
	case <-ctx.Done():
		return wire.Frame{}, context.Cause(ctx)
	}
	// What arrived before the end of the connection counts.
	<-l.ended
	select {
	case f := <-l.frames:
		return accept(f, want)
	default:
		return wire.Frame{}, context.Cause(l.ctx)
	}
}

func accept(f wire.Frame, want wire.Type) (wire.Frame, error) {
	if f.Type != want {
		return wire.Frame{}, &unexpectedError{got: f.Type, want: want}
	}
	return f, nil
}

// unexpectedError: a frame that the sequence does not have here.
type unexpectedError struct{ got, want wire.Type }

func (e *unexpectedError) Error() string {
	return fmt.Sprintf("%v: %s came where %s belongs", wire.ErrProtocol, e.got, e.want)
}

func (e *unexpectedError) Unwrap() error { return wire.ErrProtocol }
