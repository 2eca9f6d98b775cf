package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/fineline-vmm/fineline/devices/socket"
)

// socketConsole listens on a Unix socket and serves one client at a time. With
// no client, output waits, so that nothing the guest says is lost.
func socketConsole(path string) (*console, error) {
	l, err := socket.Listen(path)
	if err != nil {
		return nil, fmt.Errorf("serial: %w", err)
	}
	s := newSerialSocket(l)
	in := newBacklog()
	go s.serve(in)
	return &console{in: in, out: s, close: s.Close}, nil
}

// serialSocket is the writing side of a socket console.
type serialSocket struct {
	listener net.Listener

	mu      sync.Mutex
	changed *sync.Cond // signalled on every change of the fields below
	conn    net.Conn   // nil while there is no client
	expired bool       // there is a write deadline
	closed  bool
}

func newSerialSocket(l net.Listener) *serialSocket {
	s := &serialSocket{listener: l}
	s.changed = sync.NewCond(&s.mu)
	return s
}

// serve lets one client after the other talk to the guest until Close. Input goes to a
// backlog, which never blocks: else a client that leaves while the guest does not read
// would never be missed.
func (s *serialSocket) serve(in *backlog) {
	defer close(in.done)
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		if !s.take(conn) {
			_ = conn.Close() // nothing was written to it
			return
		}
		_, _ = io.Copy(in, conn) // until this client goes
		s.drop(conn)
	}
}

// take makes conn the client, unless the console is closed.
func (s *serialSocket) take(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.conn = conn
	s.changed.Broadcast()
	return true
}

// drop forgets a client that has gone.
func (s *serialSocket) drop(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = conn.Close() // the client has gone: nobody to tell
	if s.conn == conn {
		s.conn = nil
	}
}

// Write gives p to the client, waiting for one.
func (s *serialSocket) Write(p []byte) (int, error) {
	written := 0
	for {
		conn, err := s.client()
		if err != nil {
			return written, err
		}
		n, err := conn.Write(p[written:])
		if written += n; err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			return written, err
		}
		s.drop(conn)
	}
}

// client waits until there is one, or until nothing may be written any more.
func (s *serialSocket) client() (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.conn == nil && !s.closed && !s.expired {
		s.changed.Wait()
	}
	switch {
	case s.closed:
		return nil, net.ErrClosed
	case s.expired:
		return nil, os.ErrDeadlineExceeded
	}
	return s.conn, nil
}

// SetWriteDeadline ends a Write under way, and those to come, until it is called with
// the zero time. Any other time counts as past: the serial port sets no other.
func (s *serialSocket) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expired = !t.IsZero()
	s.changed.Broadcast()
	if s.conn != nil {
		_ = s.conn.SetWriteDeadline(t) // fails for a client that has gone, whose writes fail as well
	}
	return nil
}

// Close ends the console; a second Close does nothing.
func (s *serialSocket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.changed.Broadcast()
	if s.conn != nil {
		_ = s.conn.Close() // wakes serve and Write
	}
	return s.listener.Close()
}
