package track

import (
	"fmt"
	"net"
	"sync"

	"github.com/fineline-vmm/fineline/guest/track/protocol"
)

// DefaultSocket is where the daemon listens.
const DefaultSocket = "/run/fineline/track.sock"

// Client is a connection to the daemon. Requests of all its sessions wait for each other.
type Client struct {
	mu     sync.Mutex
	conn   net.Conn
	reader *protocol.Reader
	id     uint64
	err    error // why no further request is sent
}

// Dial connects to the daemon.
func Dial(socket string) (*Client, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("the tracking daemon: %w", err)
	}
	return &Client{conn: conn, reader: protocol.NewReader(conn, protocol.MaxResponseBytes)}, nil
}

// Close ends the connection, and with it the sessions.
func (c *Client) Close() error {
	err := c.conn.Close() // ends a call that waits
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil
	}
	c.err = ErrClosed
	return err
}

// Self tracks this process.
func (c *Client) Self(o Options) (Session, error) {
	s, err := c.Process(0, o)
	if err != nil {
		return nil, err
	}
	return &lockedSession{Session: s}, nil
}

// Process tracks a process, which only root may; 0 is the calling one.
func (c *Client) Process(pid int, o Options) (Session, error) {
	r, err := c.call(protocol.Request{
		Op: protocol.OpOpen, PID: pid, Mode: uint8(o.Mode), CountBytes: o.CountBytes, Follow: uint8(o.Follow),
	})
	if err != nil {
		return nil, err
	}
	return &clientSession{c: c, id: r.Session}, nil
}

// List returns all sessions of the daemon, for root alone.
func (c *Client) List() ([]protocol.Session, error) {
	r, err := c.call(protocol.Request{Op: protocol.OpList})
	return r.Sessions, err
}

// call sends a request and waits for its response.
func (c *Client) call(q protocol.Request) (protocol.Response, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return protocol.Response{}, c.err
	}
	c.id++
	q.ID = c.id
	var r protocol.Response
	err := protocol.Write(c.conn, q)
	if read := c.reader.Next(&r); read == nil {
		err = nil // the daemon may say why it ended before it has read all
	} else if err == nil {
		err = read
	}
	switch {
	case err != nil:
		c.err = fmt.Errorf("the tracking daemon: %w", err)
		return r, c.err
	case r.Error != nil && r.ID != q.ID: // of the whole connection, which it ends
		c.err = &refusal{*r.Error}
		return r, c.err
	case r.Error != nil:
		return r, &refusal{*r.Error}
	case r.ID != q.ID:
		c.err = fmt.Errorf("the tracking daemon: response %d to request %d", r.ID, q.ID)
		return r, c.err
	}
	return r, nil
}

// refusal is the daemon's error. It wraps the error that says the same here.
type refusal struct{ e protocol.Error }

func (r *refusal) Error() string { return "the tracking daemon: " + r.e.Message }

func (r *refusal) Unwrap() error {
	for _, known := range Codes {
		if known.Code == r.e.Code {
			return known.Err
		}
	}
	return nil
}

// Codes pairs errors with their codes on the wire; the first that fits counts.
var Codes = []struct {
	Err  error
	Code protocol.Code
}{
	{ErrPermission, protocol.Permission},
	{ErrLimit, protocol.Limit},
	{ErrTooLarge, protocol.Limit},
	{ErrGone, protocol.Gone},
	{ErrBadRange, protocol.BadRange},
	{ErrNotMapped, protocol.NotMapped},
	{ErrState, protocol.State},
	{ErrClosed, protocol.State},
	{ErrNoSpace, protocol.NoSpace},
}

// clientSession is a Session of a Client.
type clientSession struct {
	c  *Client
	id uint64

	mu     sync.Mutex // over the parts of one report
	closed bool
}

func (s *clientSession) simple(q protocol.Request) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.call(q)
	return err
}

// call is the connection's for this session. s.mu is held.
func (s *clientSession) call(q protocol.Request) (protocol.Response, error) {
	if s.closed {
		return protocol.Response{}, ErrClosed
	}
	q.Session = s.id
	return s.c.call(q)
}

// ranged sends ranges in as many requests as they need.
func (s *clientSession) ranged(op string, ranges []Range) error {
	for len(ranges) > 0 {
		n := min(len(ranges), protocol.MaxRanges)
		q := protocol.Request{Op: op}
		for _, r := range ranges[:n] {
			q.Ranges = append(q.Ranges, protocol.Range{Address: protocol.Hex(r.Address), Bytes: protocol.Hex(r.Bytes)})
		}
		if err := s.simple(q); err != nil {
			return err
		}
		ranges = ranges[n:]
	}
	return nil
}

func (s *clientSession) Add(ranges ...Range) error    { return s.ranged(protocol.OpAdd, ranges) }
func (s *clientSession) Remove(ranges ...Range) error { return s.ranged(protocol.OpRemove, ranges) }
func (s *clientSession) Start() error                 { return s.simple(protocol.Request{Op: protocol.OpStart}) }
func (s *clientSession) Stop() error                  { return s.simple(protocol.Request{Op: protocol.OpStop}) }

func (s *clientSession) Harvest() (*Report, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	report := &Report{}
	for op := protocol.OpHarvest; ; op = protocol.OpMore {
		r, err := s.call(protocol.Request{Op: op})
		if err != nil {
			return nil, err
		}
		if r.Report == nil {
			return nil, fmt.Errorf("the tracking daemon: a harvest without a report")
		}
		for _, p := range r.Report.Pages {
			report.Pages = append(report.Pages, Page{
				Address: uint64(p.Address), Lines: uint64(p.Lines), ChangedBytes: p.ChangedBytes, Flags: Flags(p.Flags),
			})
		}
		report.Present = r.Report.Present
		if !r.Report.More {
			return report, nil
		}
	}
}

func (s *clientSession) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	_, err := s.call(protocol.Request{Op: protocol.OpClose})
	s.closed = true
	return err
}
