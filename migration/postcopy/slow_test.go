package postcopy

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/migration/wire"
)

// slowConn is a connection that carries a piece each time that somebody looks at its queue.
type slowConn struct {
	*net.UnixConn
	carry func()
}

func (c slowConn) SyscallConn() (syscall.RawConn, error) {
	c.carry()
	return c.UnixConn.SyscallConn()
}

// TestSlowEndIsNotSilent: when all was sent, a destination to which the kernel has still to bring it may be silent for longer.
func TestSlowEndIsNotSilent(t *testing.T) {
	const (
		pages, pieces = 30, 24
		timeout       = 400 * time.Millisecond // in which fewer pieces are carried
	)
	l := newLinks(t, 1)
	defer l.close()
	source := newSource(t, pages)
	s := NewServer(source, setOf(source, allPages(source)...), ServerOptions{PeerTimeout: timeout, BatchBytes: wire.MinBatchBytes})
	ctx, cancel := context.WithCancelCause(t.Context())
	complete := errors.New("complete")
	var mu sync.Mutex // the group looks, and who waits for the end
	left := pieces
	background := slowConn{l.source[1].Conn.(*net.UnixConn), nil}
	background.carry = func() {
		mu.Lock()
		defer mu.Unlock()
		if left--; left < 0 {
			cancel(complete)
			return
		}
		if _, err := io.ReadFull(l.destination[1].Conn, make([]byte, 3<<10)); err != nil {
			t.Error(err)
		}
	}
	if err := s.Serve(ctx, l.source[0], []Conn{newConn(background)}); !errors.Is(err, complete) {
		t.Errorf("with %d pieces to carry: %v", left, err)
	}
}

// TestSlowWriteIsNotSilent: a write waits for room in the kernel's queue as long as that shrinks.
func TestSlowWriteIsNotSilent(t *testing.T) {
	const (
		frameBytes, pieceBytes = 512 << 10, 16 << 10 // a socket holds less than half of the frame
		pieces                 = 30
		timeout                = 400 * time.Millisecond // in which fewer pieces are carried
	)
	l := newLinks(t, 0)
	defer l.close()
	left := pieces
	slow := slowConn{l.source[0].Conn.(*net.UnixConn), nil}
	slow.carry = func() {
		if left == 0 {
			return
		}
		left--
		if _, err := io.ReadFull(l.destination[0].Conn, make([]byte, pieceBytes)); err != nil {
			t.Error(err)
		}
	}
	c := newConn(slow)
	g := newGroup(t.Context(), []Conn{c}, timeout)
	g.start(func() error {
		return c.send(g.ctx, timeout, func() error { return c.Writer.Bytes(wire.TypePages, make([]byte, frameBytes)) })
	})
	if err := g.wait(); err != nil {
		t.Errorf("with %d pieces to carry: %v", left, err)
	}
}
