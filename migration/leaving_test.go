package migration

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/memory"
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

// stickSource has the source take nothing once stuck, but for what comes on later connections; waits is closed when the destination
// waits for that.
func (p *pair) stickSource() (stuck *atomic.Bool, waits <-chan struct{}) {
	p.opts.PeerTimeout = hangGuard // much longer than anybody should wait here
	stuck, closed := new(atomic.Bool), make(chan struct{})
	waiting := sync.OnceFunc(func() { close(closed) })
	p.wrap = func(side string, c net.Conn) net.Conn {
		if side == source || stuck.Load() {
			return c
		}
		return newStuckConn(c, stuck, waiting)
	}
	return stuck, closed
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// TestLeavesStuckSource: a guest that is to leave does not wait for a kept source that takes nothing, which hears of it on its next
// connection.
func TestLeavesStuckSource(t *testing.T) {
	p, st := keptPair(t, wire.ModePrecopy)
	stuck, waits := p.stickSource()
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
	eventually(t, "no checkpoint is taken any more", func() bool { return isClosed(left) })
	phase, _ := lastPhase(p.dst.journal.Records("guest", 1), "guest", 1, journal.Destination)
	if phase != journal.Ended {
		t.Errorf("the destination's journal ends with %q", phase)
	}
	if err := <-ended; err != nil || !p.src.released {
		t.Errorf("%v, released %v", err, p.src.released)
	}
	eventually(t, "no journal is needed any more", func() bool { return !p.src.journal.Needed() && !p.dst.journal.Needed() })
	p.verifyLaw(destination)
}

// TestEndsInLargeCheckpoint: a guest is stopped though it stands still for a checkpoint that is sent while it is gathered, to a kept
// source that takes nothing.
func TestEndsInLargeCheckpoint(t *testing.T) {
	p, st := keptPair(t, wire.ModePrecopy)
	stuck, waits := p.stickSource()
	p.dst.onRestore = func() error {
		p.l.current().reversal().saver.free = make(chan *wire.Batch, 1) // less than the checkpoint takes
		return nil
	}
	p.dst.onCheckpoint = func() error {
		stuck.Store(true)
		for _, r := range p.dst.mem.Regions() {
			for off := uint64(0); off < r.SizeBytes; off += memory.PageSize {
				if err := p.dst.mem.StoreUint64(r.Base+memory.GPA(off), 1); err != nil {
					return err
				}
			}
		}
		return nil
	}
	out := p.migrate()
	if out.sendErr != nil || out.gotErr != nil {
		t.Fatalf("send: %v; receive: %v", out.sendErr, out.gotErr)
	}
	ended := p.wait(st)
	<-waits
	stopped := make(chan struct{})
	go func() {
		p.l.DropCheckpoints()
		p.dst.end()
		close(stopped)
	}()
	eventually(t, "the guest has stopped", func() bool { return isClosed(stopped) })
	if err := p.l.Close(); err != nil {
		t.Error(err)
	}
	p.killDestination()
	if err := <-ended; err != nil || !p.src.released {
		t.Errorf("%v, released %v", err, p.src.released)
	}
	p.verifyLaw(nobody)
}
