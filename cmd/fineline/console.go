package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/devices/socket"
)

// console is the host's end of the guest's serial port.
type console struct {
	in  io.Reader // nil: no input
	out io.Writer
	// quit is closed when the user types Ctrl-A x on a raw terminal.
	quit  <-chan struct{}
	close func() error
}

// openConsole understands stdio, file:PATH, unix:PATH and none.
func openConsole(spec string) (*console, error) {
	switch kind, path, _ := strings.Cut(spec, ":"); {
	case spec == "none":
		return &console{out: io.Discard, close: func() error { return nil }}, nil
	case spec == "stdio":
		return stdioConsole()
	case kind == "file" && path != "":
		f, err := os.Create(path)
		if err != nil {
			return nil, fmt.Errorf("serial: %w", err)
		}
		return &console{out: f, close: f.Close}, nil
	case kind == "unix" && path != "":
		return socketConsole(path)
	}
	return nil, usageError{fmt.Errorf("--serial %q: choose stdio, file:PATH, unix:PATH or none", spec)}
}

// stdioConsole puts a terminal into raw mode, so that the guest sees each key;
// Ctrl-A x then ends the run, as in QEMU.
func stdioConsole() (*console, error) {
	fd := int(os.Stdin.Fd())
	saved, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil { // not a terminal
		return &console{in: os.Stdin, out: os.Stdout, close: func() error { return nil }}, nil
	}
	// A background job that changes or reads its terminal is stopped by the kernel.
	if foreground, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP); err != nil || foreground != unix.Getpgrp() {
		return &console{out: os.Stdout, close: func() error { return nil }}, nil
	}
	raw := *saved
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err != nil {
		return nil, fmt.Errorf("serial: raw terminal: %w", err)
	}
	quit := make(chan struct{})
	return &console{
		in:    &escapeReader{in: os.Stdin, quit: quit},
		out:   os.Stdout,
		quit:  quit,
		close: func() error { return unix.IoctlSetTermios(fd, unix.TCSETS, saved) },
	}, nil
}

// escapeReader takes Ctrl-A sequences out of the input: x quits, a second
// Ctrl-A is one Ctrl-A for the guest.
type escapeReader struct {
	in      io.Reader
	quit    chan struct{}
	pending bool // the last byte was Ctrl-A
}

const ctrlA = 0x01

func (r *escapeReader) Read(p []byte) (int, error) {
	n, err := r.in.Read(p)
	kept := p[:0]
	for _, b := range p[:n] {
		switch {
		case !r.pending && b == ctrlA:
			r.pending = true
			continue
		case r.pending && b == 'x':
			close(r.quit)
			return len(kept), io.EOF
		}
		r.pending = false
		kept = append(kept, b)
	}
	return len(kept), err
}

// socketConsole listens on a Unix socket and serves one client at a time. With
// no client, output waits, so that nothing the guest says is lost.
func socketConsole(path string) (*console, error) {
	l, err := socket.Listen(path)
	if err != nil {
		return nil, fmt.Errorf("serial: %w", err)
	}
	s := &serialSocket{listener: l, client: make(chan struct{})}
	inR, inW := io.Pipe()
	go s.accept(inW)
	return &console{in: inR, out: s, close: func() error { return errors.Join(inR.Close(), s.Close()) }}, nil
}

// serialSocket is the writing side of a socket console.
type serialSocket struct {
	listener net.Listener

	mu     sync.Mutex
	conn   net.Conn
	closed bool
	client chan struct{} // closed while there is a client, or at the end
}

func (s *serialSocket) accept(in *io.PipeWriter) {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			_ = in.CloseWithError(io.EOF)
			return
		}
		s.mu.Lock()
		s.conn = conn
		close(s.client)
		s.mu.Unlock()
		_, _ = io.Copy(in, conn) // until this client goes
		s.drop(conn)
	}
}

// drop forgets a client that has gone.
func (s *serialSocket) drop(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = conn.Close()
	if s.conn == conn && !s.closed {
		s.conn = nil
		s.client = make(chan struct{})
	}
}

// Write gives p to the client, waiting for one.
func (s *serialSocket) Write(p []byte) (int, error) {
	written := 0
	for {
		s.mu.Lock()
		client, conn, closed := s.client, s.conn, s.closed
		s.mu.Unlock()
		if closed {
			return written, net.ErrClosed
		}
		if conn == nil {
			<-client
			continue
		}
		n, err := conn.Write(p[written:])
		if written += n; err == nil {
			return written, nil
		}
		s.drop(conn)
	}
}

func (s *serialSocket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if s.conn == nil {
		close(s.client)
	} else {
		_ = s.conn.Close()
	}
	return s.listener.Close()
}
