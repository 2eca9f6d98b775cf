package migration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// maxLent bounds the descriptors of one hand-over; a machine has one a region of its memory.
const maxLent = 64

// fileConn is what a connection must be for descriptors to pass: a *net.UnixConn.
type fileConn interface {
	net.Conn
	WriteMsgUnix(b, oob []byte, addr *net.UnixAddr) (n, oobn int, err error)
	ReadMsgUnix(b, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error)
}

var errNotUnix = errors.New("a local hand-over passes the memory's files, which only a unix: address can do")

// checkLocal judges a local hand-over, which has one connection.
func (o *SendOptions) checkLocal(to Address) error {
	if o.Mode != wire.ModeLocal {
		return nil
	}
	if to.network != "unix" || o.TLS != nil {
		return errNotUnix
	}
	o.Streams = 1
	return nil
}

func (s *sender) local() bool { return s.opts.Mode == wire.ModeLocal }

// lendMemory gives the destination the files that the guest's memory is in, while the guest runs here.
func (s *sender) lendMemory(ctx context.Context) error {
	if _, ok := s.link.conn.(fileConn); !ok {
		return errNotUnix
	}
	return s.src.Memory().LendFiles(func(fds []int) error {
		return s.link.send(ctx, func(w *wire.Writer) error {
			s.link.lent = fds
			return w.Signal(wire.TypeMemory)
		})
	})
}

// put writes to the connection, with the descriptors that wait for it.
func (l *link) put(p []byte) (int, error) {
	if l.lent == nil {
		return l.pace.Write(p)
	}
	rights := unix.UnixRights(l.lent...)
	l.lent = nil
	n, _, err := l.conn.(fileConn).WriteMsgUnix(p, rights, nil)
	if err != nil {
		l.torn.Store(true)
	} else if n < len(p) { // the descriptors went with the first byte
		var more int
		more, err = l.pace.Write(p[n:])
		n += more
	}
	return n, err
}

// catcher reads a connection and keeps the descriptors that come with the bytes. A plain read would have
// the kernel close them, which is right everywhere else.
type catcher struct {
	conn  fileConn
	files []int
}

func (c *catcher) read(p []byte) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4*maxLent))
	n, oobn, flags, _, err := c.conn.ReadMsgUnix(p, oob)
	if err != nil {
		return n, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	for i := range messages {
		files, parseErr := unix.ParseUnixRights(&messages[i])
		c.files = append(c.files, files...)
		err = errors.Join(err, parseErr)
	}
	switch {
	case err != nil:
		return n, fmt.Errorf("%w: ancillary data: %w", wire.ErrProtocol, err)
	case flags&unix.MSG_CTRUNC != 0 || len(c.files) > maxLent:
		return n, fmt.Errorf("%w: more than %d descriptors with a frame", wire.ErrProtocol, maxLent)
	}
	return n, nil
}

// nextWithFiles is next for a frame that brings descriptors. They are the caller's.
func (v *visitor) nextWithFiles(ctx context.Context, takes wire.Set) (wire.Frame, []int, error) {
	conn, ok := v.conn.(fileConn)
	if !ok {
		return wire.Frame{}, nil, errNotUnix
	}
	v.catch = &catcher{conn: conn}
	f, err := v.next(ctx, takes)
	files := v.catch.files
	v.catch = nil
	if err == nil && f.Type == wire.TypeAbort {
		err = abortError(f)
	}
	if err != nil {
		return wire.Frame{}, nil, errors.Join(err, memory.CloseFiles(files))
	}
	return f, files, nil
}

func (s *session) local() bool { return s.source.Mode == wire.ModeLocal }

// prepare builds the machine, in a local hand-over on the source's own memory. Its error refuses.
func (s *session) prepare(ctx context.Context, description []byte) (*memory.Guest, error) {
	if !s.local() {
		return s.target.Prepare(description)
	}
	target, ok := s.target.(LocalTarget)
	if !ok {
		return nil, errors.New("this process cannot take a guest over with its memory: migrate without --local")
	}
	description = bytes.Clone(description) // the reader's, until the next frame
	_, files, err := s.visitor.nextWithFiles(ctx, wire.Of(wire.TypeMemory, wire.TypeAbort))
	if err != nil {
		return nil, err
	}
	return target.PrepareLocal(description, files)
}

// arrive prepares for what is to come: nothing, and nothing is cleared, where the memory is the source's.
func (s *session) arrive(mem *memory.Guest) (*arrived, error) {
	if s.local() {
		return &arrived{mem: mem}, nil
	}
	return newArrived(mem)
}
