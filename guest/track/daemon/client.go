package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/fineline-vmm/fineline/guest/track"
	"github.com/fineline-vmm/fineline/guest/track/follow"
	"github.com/fineline-vmm/fineline/guest/track/protocol"
)

// client is one connection, for its one goroutine.
type client struct {
	s        *Server
	conn     *net.UnixConn
	peer     Peer
	sessions map[uint64]*session
}

func (c *client) root() bool { return c.peer.UID == 0 }

// run answers requests until the connection ends.
func (c *client) run() {
	reader := protocol.NewReader(c.conn, protocol.MaxRequestBytes)
	for {
		q, err := reader.NextRequest()
		if err != nil {
			if protocol.Malformed(err) {
				c.s.Log("process %d of user %d: %v", c.peer.PID, c.peer.UID, err)
				_ = c.send(protocol.Response{Error: &protocol.Error{Code: protocol.BadRequest, Message: err.Error()}})
			}
			return
		}
		r, err := c.answer(q)
		r.ID = q.ID
		if err != nil {
			r = protocol.Response{ID: q.ID, Error: refuse(err)}
		}
		if c.send(r) != nil {
			return
		}
	}
}

func (c *client) send(r protocol.Response) error {
	if err := c.conn.SetWriteDeadline(time.Now().Add(c.s.Limits.Answer)); err != nil {
		return err
	}
	return protocol.Write(c.conn, r)
}

// errBadRequest is a request that no state makes right.
var errBadRequest = errors.New("bad request")

// refuse makes an error the client's.
func refuse(err error) *protocol.Error {
	e := &protocol.Error{Code: protocol.Failed, Message: err.Error()}
	if errors.Is(err, errBadRequest) {
		e.Code = protocol.BadRequest
	}
	for _, known := range track.Codes {
		if errors.Is(err, known.Err) {
			e.Code = known.Code
			break
		}
	}
	return e
}

func (c *client) answer(q protocol.Request) (protocol.Response, error) {
	switch q.Op {
	case protocol.OpOpen:
		return c.open(q)
	case protocol.OpList:
		return c.list()
	case protocol.OpClose:
		return protocol.Response{}, c.close(q.Session)
	}
	x := c.sessions[q.Session]
	if x == nil {
		return protocol.Response{}, noSession(q.Session)
	}
	switch q.Op {
	case protocol.OpAdd:
		return protocol.Response{}, c.add(x, q)
	case protocol.OpRemove:
		return protocol.Response{}, c.remove(x, q)
	case protocol.OpStart, protocol.OpStop:
		return protocol.Response{}, c.setRunning(x, q.Op == protocol.OpStart)
	case protocol.OpHarvest, protocol.OpMore:
		return harvest(x, q.Op)
	}
	return protocol.Response{}, fmt.Errorf("%w: no operation %.40q", errBadRequest, q.Op)
}

func noSession(id uint64) error {
	return fmt.Errorf("%w: this connection has no session %d", track.ErrState, id)
}

func (c *client) open(q protocol.Request) (protocol.Response, error) {
	o := track.Options{Mode: track.Mode(q.Mode), CountBytes: q.CountBytes, Follow: track.Mappings(q.Follow)}
	pid := c.peer.PID
	switch {
	case o.Follow > track.FollowWritable:
		return protocol.Response{}, fmt.Errorf("%w: follow %d", errBadRequest, q.Follow)
	case q.PID != 0 && !c.root():
		return protocol.Response{}, fmt.Errorf("%w: only root may track process %d", track.ErrPermission, q.PID)
	case o.Follow != track.FollowNothing && !c.root():
		return protocol.Response{}, fmt.Errorf("%w: only root may follow all of a process's memory; add ranges", track.ErrPermission)
	case q.PID != 0:
		pid = q.PID
	default:
		o.Check = c.peer.Check
	}
	if err := c.s.take(c, 1, 0); err != nil {
		return protocol.Response{}, err
	}
	opened, err := c.s.System.Process(pid, o)
	if err != nil {
		return protocol.Response{}, errors.Join(err, c.s.take(c, -1, 0))
	}
	x := &session{Session: opened, info: protocol.Session{UID: c.peer.UID, Client: c.peer.PID, PID: pid}}
	c.s.enter(x)
	c.sessions[x.info.Session] = x
	return protocol.Response{Session: x.info.Session}, nil
}

func rangesOf(q protocol.Request) ([]track.Range, error) {
	var ranges []track.Range
	for _, r := range q.Ranges {
		ranges = append(ranges, track.Range{Address: uint64(r.Address), Bytes: uint64(r.Bytes)})
	}
	return follow.Normalize(ranges)
}

func (c *client) add(x *session, q protocol.Request) error {
	ranges, err := rangesOf(q)
	if err != nil {
		return err
	}
	all, err := follow.Normalize(append(slices.Clone(ranges), x.ranges...))
	if err != nil {
		return err
	}
	// Counted before, so that no request is carried out that is too much.
	more := follow.Bytes(all) - x.bytes
	if more > follow.MaxBytes {
		return track.ErrTooLarge
	}
	if err := c.s.take(c, 0, int64(more)); err != nil {
		return err
	}
	if err := x.Add(ranges...); err != nil {
		return errors.Join(err, c.s.take(c, 0, -int64(more)))
	}
	x.ranges, x.bytes = all, x.bytes+more
	return nil
}

func (c *client) remove(x *session, q protocol.Request) error {
	ranges, err := rangesOf(q)
	if err != nil {
		return err
	}
	if err := x.Remove(ranges...); err != nil {
		return err
	}
	x.ranges = follow.Subtract(x.ranges, ranges)
	less := x.bytes - follow.Bytes(x.ranges)
	x.bytes -= less
	return c.s.take(c, 0, -int64(less))
}

func (c *client) setRunning(x *session, start bool) error {
	do := x.Stop
	if start {
		do = x.Start
	}
	if err := do(); err != nil {
		return err
	}
	c.s.setStarted(x, start)
	return nil
}

// harvest returns the first or the next part of a report.
func harvest(x *session, op string) (protocol.Response, error) {
	switch {
	case op == protocol.OpMore && x.rest == nil:
		return protocol.Response{}, fmt.Errorf("%w: the report was complete", track.ErrState)
	case op == protocol.OpHarvest && x.rest != nil:
		return protocol.Response{}, fmt.Errorf("%w: the report before is not fetched", track.ErrState)
	case op == protocol.OpHarvest:
		report, err := x.Harvest()
		if err != nil {
			return protocol.Response{}, err
		}
		x.rest = report
	}
	n := min(len(x.rest.Pages), protocol.MaxPages)
	part := &protocol.Report{Present: x.rest.Present, More: n < len(x.rest.Pages), Pages: make([]protocol.Page, n)}
	for i, p := range x.rest.Pages[:n] {
		part.Pages[i] = protocol.Page{
			Address: protocol.Hex(p.Address), Lines: protocol.Hex(p.Lines), ChangedBytes: p.ChangedBytes, Flags: uint8(p.Flags),
		}
	}
	if x.rest.Pages = x.rest.Pages[n:]; !part.More {
		x.rest = nil
	}
	return protocol.Response{Report: part}, nil
}

func (c *client) close(id uint64) error {
	x := c.sessions[id]
	if x == nil {
		return noSession(id)
	}
	delete(c.sessions, id)
	c.s.leave(id)
	return errors.Join(x.Close(), c.s.take(c, -1, -int64(x.bytes)))
}

func (c *client) list() (protocol.Response, error) {
	if !c.root() {
		return protocol.Response{}, fmt.Errorf("%w: only root may list sessions", track.ErrPermission)
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	var r protocol.Response
	for _, x := range c.s.sessions {
		r.Sessions = append(r.Sessions, x.info)
	}
	slices.SortFunc(r.Sessions, func(a, b protocol.Session) int { return cmp.Compare(a.Session, b.Session) })
	return r, nil
}
