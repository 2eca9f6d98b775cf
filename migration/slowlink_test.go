package migration

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/migration/wire"
)

// slowLink is a connection that carries a piece each time that somebody looks at its queue, which is so often in a timeout.
type slowLink struct {
	*net.UnixConn
	far   *net.UnixConn // what has not been carried is not read here
	left  int           // pieces to carry
	piece []byte
	then  func(far net.Conn) // once all are
}

func (c *slowLink) SyscallConn() (syscall.RawConn, error) {
	if c.left > 0 {
		if _, err := io.ReadFull(c.far, c.piece); err != nil {
			return nil, err
		}
		if c.left--; c.left == 0 {
			c.then(c.far)
		}
	}
	return c.UnixConn.SyscallConn()
}

const (
	slowLinkTimeout = 400 * time.Millisecond
	slowLinkPieces  = 20 // of more than a timeout, and of less than a socket's buffer
)

// newSlowLink returns a link that holds pieces and carries some of them.
func newSlowLink(t *testing.T, carried int, then func(far net.Conn)) *slowLink {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "link")
		c, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		ends[i] = c.(*net.UnixConn)
		t.Cleanup(func() { c.Close() })
	}
	c := &slowLink{UnixConn: ends[0], far: ends[1], left: carried, piece: make([]byte, 4<<10), then: then}
	for range slowLinkPieces {
		if _, err := c.Write(c.piece); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// TestSlowLinkIsNotSilent: the answer to what the kernel still holds is waited for as long as that shrinks, and no longer.
func TestSlowLinkIsNotSilent(t *testing.T) {
	// Each waits for what the far end says once all is carried.
	waits := map[string]struct {
		answer func(far net.Conn)
		wait   func(c *slowLink) error
	}{
		"ROUND_ACK": {
			func(far net.Conn) { _ = wire.NewWriter(far).Signal(wire.TypeRoundAck) },
			func(c *slowLink) error {
				l := newLink(c, slowLinkTimeout)
				defer l.close()
				_, err := l.expect(t.Context(), wire.TypeRoundAck)
				return err
			},
		},
		"a checkpoint's acknowledgement": {
			func(far net.Conn) {
				_ = wire.NewWriter(far).Message(wire.TypeCheckpointAck, wire.Checkpoint{Number: 1})
			},
			func(c *slowLink) error {
				v := newVisitor(c, slowLinkTimeout)
				h := hear(t.Context(), v)
				defer func() {
					v.close()
					<-h.ended
				}()
				_, err := h.ack(v)
				return err
			},
		},
	}
	for name, w := range waits {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := w.wait(newSlowLink(t, slowLinkPieces, w.answer)); err != nil {
				t.Errorf("slow: %v", err)
			}
			stalled := newSlowLink(t, slowLinkPieces/2, func(net.Conn) {})
			if err := w.wait(stalled); !errors.Is(err, ErrPeerSilent) || stalled.left != 0 {
				t.Errorf("stalled with %d pieces left to carry: %v", stalled.left, err)
			}
		})
	}
}

// TestSlowStreamIsNotSilent: what a stream still holds delays the answer on the main connection.
func TestSlowStreamIsNotSilent(t *testing.T) {
	here, there := net.Pipe()
	defer there.Close()
	l := newLink(here, slowLinkTimeout)
	defer l.close()
	slow := newSlowLink(t, slowLinkPieces, func(net.Conn) {
		go func() { _ = wire.NewWriter(there).Signal(wire.TypeReady) }()
	})
	if _, err := l.expect(t.Context(), wire.TypeReady, newStream(slow, slowLinkTimeout, &atomic.Uint64{})); err != nil {
		t.Error(err)
	}
}

// TestSlowQueueIsNotSilent: a write waits for room in the kernel's queue as long as that shrinks, and ends with its context all the same.
func TestSlowQueueIsNotSilent(t *testing.T) {
	fill := func(c *slowLink) {
		_ = c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)) // by which it is full
		for {
			if _, err := c.Write(c.piece); err != nil {
				return
			}
		}
	}
	frame := func(w *wire.Writer) error { return w.Bytes(wire.TypeState, make([]byte, 8<<10)) }
	slow := newSlowLink(t, 1<<20, func(net.Conn) {})
	fill(slow)
	if err := newStream(slow, slowLinkTimeout, &atomic.Uint64{}).send(t.Context(), frame); err != nil {
		t.Errorf("slow: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	full := newSlowLink(t, 0, func(net.Conn) {})
	fill(full)
	if err := newStream(full, time.Hour, &atomic.Uint64{}).send(ctx, frame); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("hurried: %v", err)
	}
}
