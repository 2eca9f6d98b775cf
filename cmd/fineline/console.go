package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// console is the host's end of the guest's serial port.
type console struct {
	in  io.Reader // nil: no input
	out io.Writer
	// quit is closed when the user ends the run by the keys of a raw terminal.
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
		f, err := openLog(path)
		if err != nil {
			return nil, fmt.Errorf("serial: %w", err)
		}
		return &console{out: f, close: f.Close}, nil
	case kind == "unix" && path != "":
		return socketConsole(path)
	}
	return nil, usageError{fmt.Errorf("--serial %q: choose stdio, file:PATH, unix:PATH or none", spec)}
}

// backlogBytes is the input that waits for a guest which does not read.
const backlogBytes = 64 << 10

// backlog is input between a host that must not wait and a guest that may: what does
// not fit is dropped, as a UART without flow control does.
type backlog struct {
	bytes chan byte
	done  chan struct{} // closed at the end
}

func newBacklog() *backlog {
	return &backlog{bytes: make(chan byte, backlogBytes), done: make(chan struct{})}
}

// Write never fails and never blocks.
func (b *backlog) Write(p []byte) (int, error) {
	for _, c := range p {
		select {
		case b.bytes <- c:
		default:
		}
	}
	return len(p), nil
}

// Read waits for one byte and takes what else is there.
func (b *backlog) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	select {
	case p[0] = <-b.bytes:
	case <-b.done:
		return 0, io.EOF
	}
	for n := 1; n < len(p); n++ {
		select {
		case p[n] = <-b.bytes:
		default:
			return n, nil
		}
	}
	return len(p), nil
}

// openLog empties and locks a file for serial output, so that a second machine that is
// given the same file by mistake does not destroy what the first one writes. A device or
// a pipe has nothing to empty, and many may write to it.
func openLog(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return f, nil
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s: another machine writes to it: choose another file", path)
	}
	if err := f.Truncate(0); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}
