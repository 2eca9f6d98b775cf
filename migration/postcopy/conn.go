package postcopy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/fineline-vmm/fineline/migration/sendqueue"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// Classes of failure that a caller acts on: after either of the first two, new connections may go on.
var (
	// ErrConnectionLost: a connection to the peer ended.
	ErrConnectionLost = errors.New("a connection of the post-copy was lost")
	// ErrPeerSilent: the peer did not answer, take or send anything for the PeerTimeout.
	ErrPeerSilent = errors.New("the peer of the post-copy is silent")
)

// Conn is a connection after its greeting: Reader and Writer go on with its frames. The caller owns and
// closes it. What Server.Serve or Pager.Run was given carries no more frames when they have returned, since they may
// have left one half-way.
type Conn struct {
	net.Conn
	Reader *wire.Reader
	Writer *wire.Writer
}

// faultReadBytes holds a frame of a missed page, or a request, so that one system call reads it.
const faultReadBytes = 8 << 10

// send runs one write of a frame; a peer that does not take it within timeout is lost, unless something moves: see group.
func (c *Conn) send(ctx context.Context, timeout time.Duration, write func() error) error {
	_ = c.SetWriteDeadline(time.Now().Add(timeout)) // fails only when closed, as will the write
	// The group's deadline may have been set just before ours; then its context has ended before.
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return connectionError(write())
}

// connectionError gives what a broken connection says one class, and keeps what the peer did wrong.
func connectionError(err error) error {
	var version *wire.VersionError
	var timeout net.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, wire.ErrProtocol), errors.As(err, &version):
		return err
	case errors.Is(err, io.EOF):
		return ErrConnectionLost
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%w: %w", ErrPeerSilent, err)
	}
	return fmt.Errorf("%w: %w", ErrConnectionLost, err)
}

func protocolErrorf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", wire.ErrProtocol, fmt.Errorf(format, args...))
}

// group is the goroutines of one run over one set of connections. The first error ends all of them:
// their context, and what they wait for on the connections.
type group struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	stop   func() bool
	tasks  sync.WaitGroup

	unfollow []func()
}

// newGroup begins. As long as the kernel sends what it has of a connection, a write that waits there has the timeout anew.
func newGroup(ctx context.Context, conns []Conn, timeout time.Duration) *group {
	g := &group{}
	g.ctx, g.cancel = context.WithCancelCause(ctx)
	for i := range conns {
		c := conns[i].Conn
		moved := func() { _ = c.SetWriteDeadline(time.Now().Add(timeout)) } // fails only when closed, as will the write
		g.unfollow = append(g.unfollow, sendqueue.Follow(timeout, moved, c))
	}
	g.stop = context.AfterFunc(g.ctx, func() {
		for i := range conns {
			g.unfollow[i]()
			_ = conns[i].SetDeadline(time.Unix(0, 1)) // long past: reads and writes return
		}
	})
	return g
}

func (g *group) start(task func() error) {
	g.tasks.Go(func() {
		if err := task(); err != nil {
			g.cancel(err)
		}
	})
}

// wait returns what ended the group first, when all have returned; nil when each returned nil.
func (g *group) wait() error {
	g.tasks.Wait()
	err := context.Cause(g.ctx)
	g.cancel(nil)
	g.stop()
	for _, unfollow := range g.unfollow {
		unfollow()
	}
	return err
}
