package migration

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"github.com/fineline-vmm/fineline/migration/wire"
)

// visitor is the destination's end of one connection. One goroutine at a time reads, and one writes: another one, with the
// acknowledgements of checkpoints (reverse.go).
type visitor struct {
	*pace
	read  atomic.Uint64 // bytes
	r     *wire.Reader
	w     *wire.Writer
	hello *wire.Hello
	catch *catcher // of descriptors, while the frame is read that brings them
}

func newVisitor(conn net.Conn, timeout time.Duration) *visitor {
	v := &visitor{pace: &pace{conn: conn, timeout: timeout}}
	v.w = wire.NewWriter(v.pace)
	v.r = wire.NewReader(v)
	return v
}

// Read is for the visitor's wire.Reader only.
func (v *visitor) Read(p []byte) (int, error) {
	if v.catch != nil {
		return v.catch.read(p)
	}
	n, err := v.conn.Read(p)
	v.read.Add(uint64(n))
	return n, err
}

// greet reads HELLO, and RESOLVE if that is the purpose.
func (v *visitor) greet(ctx context.Context) error {
	if err := v.handshake(ctx); err != nil {
		return err
	}
	f, err := v.next(ctx, wire.Of(wire.TypeHello))
	if err != nil {
		return v.unexpectedTLS(err)
	}
	if v.hello, err = wire.Decode[wire.Hello](f); err != nil {
		return err
	}
	if v.hello.Purpose == wire.PurposeResolve {
		_, err = v.next(ctx, wire.Of(wire.TypeResolve))
	}
	return err
}

// next reads a frame of one of the types. When ctx ends, so does the wait; the connection is then of
// no use for reading.
func (v *visitor) next(ctx context.Context, takes wire.Set) (wire.Frame, error) {
	stop := context.AfterFunc(ctx, func() { _ = v.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	f, err := v.r.Next(takes)
	if err != nil && ctx.Err() != nil {
		return wire.Frame{}, context.Cause(ctx)
	}
	if err != nil {
		return wire.Frame{}, connectionError(err)
	}
	return f, nil
}

// send writes a message; a nil message is a signal.
func (v *visitor) send(t wire.Type, msg any) error {
	return v.write(context.Background(), func() error {
		if msg == nil {
			return v.w.Signal(t)
		}
		return v.w.Message(t, msg)
	})
}

// sendBytes writes an opaque payload.
func (v *visitor) sendBytes(t wire.Type, payload []byte) error {
	return v.write(context.Background(), func() error { return v.w.Bytes(t, payload) })
}

// write runs one write of a frame, which has abortGrace to be finished when ctx ends.
func (v *visitor) write(ctx context.Context, frame func() error) error {
	if v.torn.Load() {
		return ErrConnectionLost
	}
	if err := v.pace.send(ctx, frame); err != nil {
		return connectionError(err)
	}
	return nil
}

func (v *visitor) close() { _ = v.conn.Close() }
