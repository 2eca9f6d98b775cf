package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Link says how fast a link is.
type Link struct {
	BitsPerS uint64
	Delay    time.Duration // one way
}

// String is the rate in words, and the delay if there is one.
func (l Link) String() string {
	text := fmt.Sprintf("%g bit/s", float64(l.BitsPerS))
	for _, unit := range []struct {
		bits uint64
		name string
	}{{1e9, "Gbit/s"}, {1e6, "Mbit/s"}, {1e3, "kbit/s"}} {
		if l.BitsPerS >= unit.bits {
			text = fmt.Sprintf("%g %s", float64(l.BitsPerS)/float64(unit.bits), unit.name)
			break
		}
	}
	if l.Delay > 0 {
		text += fmt.Sprintf(" and %v", l.Delay)
	}
	return text
}

// Relay passes connections on over one link.
type Relay struct {
	listener     net.Listener
	to           string
	there, back  wire
	ctx          context.Context // ends with Close
	cancel       context.CancelFunc
	running      sync.WaitGroup
	mu           sync.Mutex
	conns        map[net.Conn]struct{}
	firstFailure error // of a connection to the destination
}

// Start listens on the Unix socket from and passes what comes to the Unix socket to, which need not be there yet. The
// caller ends it with Close.
func Start(from, to string, link Link) (*Relay, error) {
	if link.BitsPerS < 8000 {
		return nil, fmt.Errorf("a link of %d bit/s: give at least 8000", link.BitsPerS)
	}
	listener, err := net.Listen("unix", from)
	if err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	r := &Relay{
		listener: listener, to: to, conns: map[net.Conn]struct{}{},
		there: wire{bytesPerS: link.BitsPerS / 8, delay: link.Delay},
		back:  wire{bytesPerS: link.BitsPerS / 8, delay: link.Delay},
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.running.Go(r.accept)
	return r, nil
}

// Close cuts all connections and returns when nothing is left of them. Its error is of a connection that could not be made.
func (r *Relay) Close() error {
	r.cancel()
	err := r.listener.Close()
	r.mu.Lock()
	for c := range r.conns {
		_ = c.Close() // what it carries is over
	}
	r.mu.Unlock()
	r.running.Wait()
	return errors.Join(err, r.firstFailure)
}

func (r *Relay) accept() {
	for {
		in, err := r.listener.Accept()
		if err != nil {
			return // closed
		}
		out, err := net.Dial("unix", r.to)
		if err != nil {
			_ = in.Close() // says to the source that there is nobody
			r.mu.Lock()
			r.firstFailure = errors.Join(r.firstFailure, fmt.Errorf("relay: %w", err))
			r.mu.Unlock()
			continue
		}
		r.connect(in, out)
	}
}

// connect passes both directions of one connection, and closes it when both have ended or one has failed.
func (r *Relay) connect(in, out net.Conn) {
	if !r.keep(in, out) {
		return
	}
	cut := sync.OnceFunc(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, c := range []net.Conn{in, out} {
			_ = c.Close() // nothing more is to be said, or to be heard
			delete(r.conns, c)
		}
	})
	var directions sync.WaitGroup
	for _, d := range []direction{{&r.there, out, in, cut}, {&r.back, in, out, cut}} {
		directions.Go(func() { d.pass(r.ctx) })
	}
	r.running.Go(func() {
		directions.Wait()
		cut()
	})
}

// keep remembers connections for Close, unless that was already called.
func (r *Relay) keep(conns ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range conns {
		if r.ctx.Err() != nil {
			_ = c.Close() // too late
			continue
		}
		r.conns[c] = struct{}{}
	}
	return r.ctx.Err() == nil
}
