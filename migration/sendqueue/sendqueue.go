package sendqueue

import (
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// samples is how often in a timeout the queues are looked at: by so much more than the timeout a silence can last.
const samples = 8

// Follow calls moved when bytes have left the send queues of the connections, or come to them, since it looked last, which is some
// times in a timeout. No call is under way when stop has returned; stop may be called again. A connection without a
// queue in the kernel never moves.
func Follow(timeout time.Duration, moved func(), conns ...net.Conn) (stop func()) {
	f := &follower{every: max(timeout/samples, time.Millisecond), moved: moved, conns: conns, held: unknown}
	f.mu.Lock() // the first look may come before the timer is there
	defer f.mu.Unlock()
	f.timer = time.AfterFunc(f.every, f.look)
	return f.stop
}

const unknown = -1

type follower struct {
	every time.Duration
	moved func()
	conns []net.Conn

	mu    sync.Mutex
	timer *time.Timer // nil: stopped
	held  int         // bytes in all queues at the last look, or unknown
}

func (f *follower) look() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.timer == nil {
		return
	}
	held := 0
	for _, c := range f.conns {
		held += Unsent(c)
	}
	if f.held != unknown && held != f.held {
		f.moved()
	}
	f.held = held
	f.timer.Reset(f.every)
}

func (f *follower) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.timer != nil {
		f.timer.Stop()
		f.timer = nil
	}
}

// Unsent is how many bytes the kernel holds that were written to the connection and that its peer has not taken: of TCP those that
// are not acknowledged, of a Unix socket the memory of those that are not read. It is 0 where there is no such queue.
func Unsent(conn net.Conn) (bytes int) {
	switch c := conn.(type) {
	case syscall.Conn:
		raw, err := c.SyscallConn()
		if err != nil {
			return 0
		}
		_ = raw.Control(func(fd uintptr) { // fails only when closed
			bytes, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) // tcp(7), unix(7)
		})
		return bytes
	case interface{ NetConn() net.Conn }: // as crypto/tls has it
		return Unsent(c.NetConn())
	}
	return 0
}
