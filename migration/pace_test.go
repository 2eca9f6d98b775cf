package migration

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/migration/wire"
)

// slowConn takes a MiB in four hours, by a clock of its own which only its writes make go.
type slowConn struct {
	net.Conn // nil: only what is here is used
	gone     chan struct{}
	once     sync.Once
	onWrite  func()

	mu            sync.Mutex
	now, deadline time.Duration
	taken         int
	hurried       chan struct{} // closed by a deadline of less than a minute
}

const (
	slowTimeout     = time.Hour
	slowTimePerByte = 4 * time.Hour >> 20
)

func newSlowConn() *slowConn {
	return &slowConn{gone: make(chan struct{}), hurried: make(chan struct{})}
}

func (c *slowConn) SetWriteDeadline(at time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	left := time.Until(at)
	if c.deadline = c.now + left; left < time.Minute {
		close(c.hurried)
	}
	return nil
}

func (c *slowConn) Write(p []byte) (int, error) {
	if c.onWrite != nil {
		c.onWrite()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(len(p), int((c.deadline-c.now)/slowTimePerByte))
	c.now += time.Duration(n) * slowTimePerByte
	c.taken += n
	if n < len(p) {
		return n, os.ErrDeadlineExceeded
	}
	return n, nil
}

func (c *slowConn) Read([]byte) (int, error) {
	<-c.gone
	return 0, net.ErrClosed
}

func (c *slowConn) Close() error {
	c.once.Do(func() { close(c.gone) })
	return nil
}

// TestSlowLink: a peer that goes on taking bytes is not lost, however long a frame takes.
func TestSlowLink(t *testing.T) {
	payload := bytes.Repeat([]byte{1}, wire.MaxBatchBytes)
	pages := func(w *wire.Writer) error { return w.Bytes(wire.TypePages, payload) }
	for name, send := range map[string]func(c net.Conn) error{
		"link": func(c net.Conn) error {
			l := newLink(c, slowTimeout)
			defer l.close()
			return l.send(t.Context(), pages)
		},
		"stream":  func(c net.Conn) error { return newStream(c, slowTimeout, &atomic.Uint64{}).send(t.Context(), pages) },
		"visitor": func(c net.Conn) error { return newVisitor(c, slowTimeout).sendBytes(wire.TypePages, payload) },
	} {
		t.Run(name, func(t *testing.T) {
			c := newSlowConn()
			if err := send(c); err != nil || c.taken != wire.HeaderBytes+len(payload) {
				t.Errorf("%d bytes were taken: %v", c.taken, err)
			}
		})
	}
}

// TestSlowLinkIsHurried: a write whose context ends gets no more time but abortGrace, on whatever it goes on taking.
func TestSlowLinkIsHurried(t *testing.T) {
	c := newSlowConn()
	ctx, cancel := context.WithCancel(t.Context())
	c.onWrite = func() {
		cancel()
		<-c.hurried
	}
	st := newStream(c, slowTimeout, &atomic.Uint64{})
	err := st.send(ctx, func(w *wire.Writer) error {
		return w.Bytes(wire.TypePages, make([]byte, wire.MaxBatchBytes))
	})
	if !errors.Is(err, os.ErrDeadlineExceeded) || c.taken > int(abortGrace/slowTimePerByte) {
		t.Errorf("%d bytes were taken: %v", c.taken, err)
	}
}
