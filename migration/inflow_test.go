package migration

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/fineline-vmm/fineline/migration/wire"
)

// sessionWithStream expects one stream, and reads it with the context.
func sessionWithStream(t *testing.T) (*session, context.Context, context.CancelCauseFunc) {
	t.Helper()
	hello := hostileHello()
	hello.Streams = 1
	mem, err := newArrived(newPair(t).dst.mem)
	if err != nil {
		t.Fatal(err)
	}
	s := &session{source: &hello, mem: mem}
	s.expectStreams()
	ctx, cancel := context.WithCancelCause(t.Context())
	return s, ctx, cancel
}

// streamVisitor is the source's first stream.
func streamVisitor(t *testing.T, conn net.Conn) *visitor {
	v := newVisitor(conn, 0)
	t.Cleanup(v.close)
	v.hello = &wire.Hello{Stream: 1}
	return v
}

// TestStreamFails: the death of the source ends its streams, and must not end the wait for what it had sent before on the main
// connection. Whatever else is wrong with a stream ends it at once.
func TestStreamFails(t *testing.T) {
	for _, c := range []struct {
		name      string
		last      step
		ends      bool  // what waits on the main connection
		idle, mid error // what becomes of a wait without a round, and within one
	}{
		{"lost", sendRaw(nil), false, nil, ErrConnectionLost},
		{"lost after pages", sendBytes(wire.TypePages, record(wire.KindData, 1, 1, 1)), false, wire.ErrProtocol, ErrConnectionLost},
		{"garbage", sendRaw(make([]byte, wire.HeaderBytes)), true, wire.ErrProtocol, wire.ErrProtocol},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, ctx, cancel := sessionWithStream(t)
			ours, theirs := net.Pipe()
			if err := s.join(streamVisitor(t, ours)); err != nil {
				t.Fatal(err)
			}
			readers := s.readStreams(ctx, cancel)
			_ = newRawWriter(theirs).play(c.last) // fails when enough was read
			theirs.Close()
			if err := readers.wait(); !errors.Is(err, c.mid) {
				t.Errorf("within a round: %v, want %v", err, c.mid)
			}
			if ended := ctx.Err() != nil; ended != c.ends {
				t.Errorf("the wait of the main connection has ended: %t, want %t", ended, c.ends)
			}
			if err := readers.finish(true); !errors.Is(err, c.idle) {
				t.Errorf("between rounds: %v, want %v", err, c.idle)
			}
		})
	}
}

// TestLossHidesNothing: what is wrong with one stream counts though another is lost.
func TestLossHidesNothing(t *testing.T) {
	s, ctx, cancel := sessionWithStream(t)
	readers := s.readStreams(ctx, cancel)
	readers.fail(ErrConnectionLost)
	readers.fail(wire.ErrProtocol)
	if err := readers.finish(true); !errors.Is(err, wire.ErrProtocol) {
		t.Error(err)
	}
}

// TestStreamComesAsReadersEnd is for the race detector: a stream joins while the readers of a round end.
func TestStreamComesAsReadersEnd(t *testing.T) {
	s, ctx, cancel := sessionWithStream(t)
	readers := s.readStreams(ctx, cancel)
	ours, theirs := net.Pipe()
	defer theirs.Close()
	v := streamVisitor(t, ours)
	joined := make(chan error, 1)
	go func() { joined <- s.join(v) }()
	if err := readers.finish(true); err != nil {
		t.Error(err)
	}
	if err := <-joined; err != nil {
		t.Error(err)
	}
}
