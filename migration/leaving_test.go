package migration

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/migration/journal"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// stuckConn takes nothing while stuck, but heeds deadlines.
type stuckConn struct {
	net.Conn
	stuck   *atomic.Bool
	waiting func() // a write waits
	still   net.Conn
}

func newStuckConn(c net.Conn, stuck *atomic.Bool, waiting func()) net.Conn {
	still, _ := net.Pipe() // nobody is at the other end
	return &stuckConn{c, stuck, waiting, still}
}

func (c *stuckConn) Write(p []byte) (int, error) {
	if c.stuck.Load() {
		c.waiting()
		return c.still.Write(p)
	}
	return c.Conn.Write(p)
}

func (c *stuckConn) SetDeadline(at time.Time) error {
	_ = c.still.SetDeadline(at)
	return c.Conn.SetDeadline(at)
}

func (c *stuckConn) SetWriteDeadline(at time.Time) error {
	_ = c.still.SetWriteDeadline(at)
	return c.Conn.SetWriteDeadline(at)
}

func (c *stuckConn) Close() error {
	_ = c.still.Close()
	return c.Conn.Close()
}

// TestLeavesStuckSource: a guest that is to leave does not wait for a kept source that takes nothing, which hears of it when it takes
// something again.
func TestLeavesStuckSource(t *testing.T) {
	p, st := keptPair(t, wire.ModePrecopy)
	p.opts.PeerTimeout = hangGuard // much longer than anybody should wait here
	var stuck atomic.Bool
	waits := make(chan struct{})
	waiting := sync.OnceFunc(func() { close(waits) })
	p.wrap = func(side string, c net.Conn) net.Conn {
		if side == source {
			return c
		}
		return newStuckConn(c, &stuck, waiting)
	}
	out := p.migrate()
	if out.sendErr != nil || out.gotErr != nil {
		t.Fatalf("send: %v; receive: %v", out.sendErr, out.gotErr)
	}
	ended := p.wait(st)
	p.awaitCheckpoint(st, 1)
	stuck.Store(true)
	<-waits
	left := make(chan struct{})
	go func() {
		p.l.EndCheckpoints()
		close(left)
	}()
	eventually(t, "no checkpoint is taken any more", func() bool {
		select {
		case <-left:
			return true
		default:
			return false
		}
	})
	phase, _ := lastPhase(p.dst.journal.Records("guest", 1), "guest", 1, journal.Destination)
	if phase != journal.Ended {
		t.Errorf("the destination's journal ends with %q", phase)
	}
	stuck.Store(false)
	if err := <-ended; err != nil || !p.src.released {
		t.Errorf("%v, released %v", err, p.src.released)
	}
	p.verifyLaw(destination)
}
