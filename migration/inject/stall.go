package inject

import (
	"net"
	"sync"
	"time"
)

// Over returns a connection that a Stall reaches: c itself if the plan has none. The caller uses and closes
// the result in place of c.
func (p *Plan) Over(c net.Conn) net.Conn {
	if p == nil || !p.stalls {
		return c
	}
	s := &stallable{Conn: c}
	// Nobody is at the other end, so that reads and writes wait, and end at deadlines and Close as those of c.
	s.still, s.far = net.Pipe()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns = append(p.conns, s)
	if files, ok := c.(fileConn); ok {
		return &stallableFiles{s, files}
	}
	return s
}

// fileConn is a *net.UnixConn, through which descriptors pass, too.
type fileConn interface {
	WriteMsgUnix(b, oob []byte, addr *net.UnixAddr) (n, oobn int, err error)
	ReadMsgUnix(b, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error)
}

type stallableFiles struct {
	*stallable
	files fileConn
}

func (s *stallableFiles) WriteMsgUnix(b, oob []byte, addr *net.UnixAddr) (n, oobn int, err error) {
	if s.isStalled() {
		n, err = s.still.Write(b)
		return n, 0, err
	}
	return s.files.WriteMsgUnix(b, oob, addr)
}

func (s *stallableFiles) ReadMsgUnix(b, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error) {
	if !s.isStalled() {
		n, oobn, flags, addr, err = s.files.ReadMsgUnix(b, oob)
		if !s.isStalled() || n > 0 { // descriptors that have come are the reader's to close
			return n, oobn, flags, addr, err
		}
	}
	n, err = s.still.Read(b)
	return n, 0, 0, nil, err
}

// stall stops all connections that there are.
func (p *Plan) stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.stall()
	}
	p.held = append(p.held, p.conns...)
	p.conns = nil
}

// Release closes the connections that stood still.
func (p *Plan) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.held {
		_ = c.Conn.Close() // what it had to say is lost, as it was to be
	}
	p.held = nil
}

// stallable is a connection until stall, and after that one that carries nothing.
type stallable struct {
	net.Conn
	still, far net.Conn

	mu      sync.Mutex
	stalled bool
}

func (s *stallable) stall() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stalled {
		s.stalled = true
		_ = s.Conn.SetDeadline(time.Unix(0, 1)) // long past: who waits in it goes on in still
	}
}

// NetConn is the connection below, as crypto/tls names it.
func (s *stallable) NetConn() net.Conn { return s.Conn }

func (s *stallable) isStalled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stalled
}

func (s *stallable) Read(b []byte) (int, error) {
	if !s.isStalled() {
		if n, err := s.Conn.Read(b); !s.isStalled() {
			return n, err
		}
	}
	return s.still.Read(b) // what has just come is as if it were on its way
}

func (s *stallable) Write(b []byte) (int, error) {
	if !s.isStalled() {
		if n, err := s.Conn.Write(b); !s.isStalled() || err == nil {
			return n, err
		}
	}
	return s.still.Write(b)
}

func (s *stallable) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.still.Close()
	if s.stalled {
		return nil // the peer does not hear of it
	}
	return s.Conn.Close()
}

func (s *stallable) SetDeadline(t time.Time) error {
	return s.deadline(t, net.Conn.SetDeadline)
}

func (s *stallable) SetReadDeadline(t time.Time) error {
	return s.deadline(t, net.Conn.SetReadDeadline)
}

func (s *stallable) SetWriteDeadline(t time.Time) error {
	return s.deadline(t, net.Conn.SetWriteDeadline)
}

func (s *stallable) deadline(t time.Time, set func(net.Conn, time.Time) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := set(s.still, t); err != nil || s.stalled {
		return err
	}
	return set(s.Conn, t)
}
