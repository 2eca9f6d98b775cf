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
