package migration

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fineline-vmm/fineline/migration/sendqueue"
)

// pace writes to a connection whose peer is lost when it takes nothing for the timeout. A frame may take longer:
// one deadline for all of it would be too short on a slow link with many streams, though that goes on all the time. Nor
// need a piece be taken in that time, as long as the kernel sends what it has. One goroutine writes at a time.
type pace struct {
	conn    net.Conn
	timeout time.Duration
	torn    atomic.Bool // a frame was cut short: nothing can follow it

	mu      sync.Mutex
	patient bool // within send, whose context lasts
}

// pieceBytes is what must pass within the timeout where the kernel's queue is not seen.
const pieceBytes = 64 << 10

// abortGrace is how long a cancelled write may take to finish its frame, so that ABORT can follow it.
const abortGrace = time.Second

// send runs write, which calls Write. When ctx ends, what is left of it has abortGrace.
func (p *pace) send(ctx context.Context, write func() error) error {
	p.set(true, p.timeout)
	unfollow := sendqueue.Follow(p.timeout, func() { p.renew() }, p.conn)
	hurried := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(hurried)
		p.set(false, abortGrace)
	})
	defer func() {
		unfollow()
		if !stop() {
			<-hurried // or its deadline would be the next write's
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.patient = false
	}()
	return write()
}

func (p *pace) set(patient bool, timeout time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.patient = patient
	_ = p.conn.SetWriteDeadline(time.Now().Add(timeout)) // fails only when closed, as will the write
}

// Write writes in pieces within send, else under the deadline that there is: in post-copy that is package postcopy's.
func (p *pace) Write(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		piece := b[n:]
		if p.renew() {
			piece = piece[:min(len(piece), pieceBytes)]
		}
		var m int
		m, err = p.conn.Write(piece)
		n += m
	}
	if err != nil {
		p.torn.Store(true)
	}
	return n, err
}

// renew puts the deadline off, if anybody has the patience.
func (p *pace) renew() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.patient {
		_ = p.conn.SetWriteDeadline(time.Now().Add(p.timeout))
	}
	return p.patient
}

// patient returns a context that ends, with silence as its cause, when the timeout is over and for so long nothing has left the send
// queues of the connections: who waits for an answer to what was written waits for a slow link first.
func patient(ctx context.Context, timeout time.Duration, silence error, conns ...net.Conn) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	late := time.AfterFunc(timeout, func() { cancel(silence) })
	unfollow := sendqueue.Follow(timeout, func() { late.Reset(timeout) }, conns...)
	return ctx, func() {
		unfollow()
		late.Stop()
		cancel(nil)
	}
}
