package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/fineline-vmm/fineline/guest/track"
	"github.com/fineline-vmm/fineline/guest/track/protocol"
)

// Limits bound what clients can take. Those of a user do not hold for root.
type Limits struct {
	Connections     int
	UserConnections int
	UserSessions    int
	UserBytes       uint64
	// Answer is how long a client may take to accept one.
	Answer time.Duration
}

// DefaultLimits suit a machine with some programs; the device has 16 contexts.
var DefaultLimits = Limits{Connections: 128, UserConnections: 16, UserSessions: 4, UserBytes: 256 << 20, Answer: 10 * time.Second}

// Server shares a System. Its fields are not changed once it serves.
type Server struct {
	System   track.System
	Limits   Limits
	Identify func(*net.UnixConn) (Peer, error)
	// Log is told what a client did wrong and what failed; it may be called at any time from any goroutine.
	Log func(format string, args ...any)

	mu       sync.Mutex
	clients  map[*client]bool
	users    map[uint32]*usage
	sessions map[uint64]*session
	ids      uint64
}

// usage is what one user has.
type usage struct {
	connections, sessions int
	bytes                 uint64
}

// session is one of a client.
type session struct {
	track.Session
	info   protocol.Session
	ranges []track.Range // listed
	bytes  uint64
	rest   *track.Report // what "more" asks for
}

// Serve answers connections until ctx ends or accepting fails, then ends all sessions. It closes the listener.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener) error {
	s.clients, s.users, s.sessions = map[*client]bool{}, map[uint32]*usage{}, map[uint64]*session{}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	var wg sync.WaitGroup
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			s.disconnectAll()
			wg.Wait()
			if ctx.Err() != nil {
				return nil
			}
			return errors.Join(fmt.Errorf("accept: %w", err), l.Close())
		}
		wg.Go(func() { s.serve(conn) })
	}
}

func (s *Server) disconnectAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.clients {
		_ = c.conn.Close() // its goroutine cleans up
	}
}

func (s *Server) serve(conn *net.UnixConn) {
	defer conn.Close()
	peer, err := s.Identify(conn)
	if err != nil {
		s.Log("%v", err)
		return
	}
	defer peer.Close()
	c := &client{s: s, conn: conn, peer: peer, sessions: map[uint64]*session{}}
	if err := s.admit(c); err != nil {
		_ = c.send(protocol.Response{Error: refuse(err)})
		return
	}
	defer s.dismiss(c)
	c.run()
}

// admit counts a connection.
func (s *Server) admit(c *client) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.users[c.peer.UID]
	if u == nil {
		u = &usage{}
	}
	switch {
	case len(s.clients) >= s.Limits.Connections:
		return fmt.Errorf("%w: %d connections", track.ErrLimit, s.Limits.Connections)
	case c.peer.UID != 0 && u.connections >= s.Limits.UserConnections:
		return fmt.Errorf("%w: %d connections of user %d", track.ErrLimit, s.Limits.UserConnections, c.peer.UID)
	}
	u.connections++
	s.users[c.peer.UID] = u
	s.clients[c] = true
	return nil
}

// dismiss ends a connection's sessions.
func (s *Server) dismiss(c *client) {
	for id := range c.sessions {
		if err := c.close(id); err != nil {
			s.Log("end the session of process %d: %v", c.peer.PID, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.clients, c)
	if u := s.users[c.peer.UID]; u.connections > 1 {
		u.connections--
	} else {
		delete(s.users, c.peer.UID)
	}
}

// take counts more sessions and bytes of the client's user, or less, and refuses what is too much.
func (s *Server) take(c *client, sessions int, bytes int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.users[c.peer.UID]
	if c.peer.UID != 0 {
		if sessions > 0 && u.sessions+sessions > s.Limits.UserSessions {
			return fmt.Errorf("%w: %d sessions of user %d", track.ErrLimit, s.Limits.UserSessions, c.peer.UID)
		}
		if bytes > 0 && u.bytes+uint64(bytes) > s.Limits.UserBytes {
			return fmt.Errorf("%w: %d MiB of user %d", track.ErrLimit, s.Limits.UserBytes>>20, c.peer.UID)
		}
	}
	u.sessions += sessions
	u.bytes += uint64(bytes) // two's complement: a negative one subtracts
	return nil
}

// enter gives a session its number and lists it.
func (s *Server) enter(x *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids++
	x.info.Session = s.ids
	s.sessions[s.ids] = x
}

func (s *Server) leave(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, id)
}

// setStarted changes what list shows.
func (s *Server) setStarted(x *session, started bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x.info.Started = started
}
