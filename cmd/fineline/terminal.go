package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// stdioConsole puts a terminal into raw mode, so that the guest sees each key;
// Ctrl-A x then ends the run, as in QEMU.
func stdioConsole() (*console, error) {
	out := withDeadlines(os.Stdout)
	closeOut := func() error {
		if out == os.Stdout {
			return nil
		}
		return out.Close()
	}
	fd := int(os.Stdin.Fd())
	saved, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil { // not a terminal: it may wait for the guest, nothing in it is for us
		return &console{in: os.Stdin, out: out, close: closeOut}, nil
	}
	// A background job that changes or reads its terminal is stopped by the kernel.
	if foreground, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP); err != nil || foreground != unix.Getpgrp() {
		return &console{out: out, close: closeOut}, nil
	}
	raw := *saved
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err != nil {
		return nil, errors.Join(fmt.Errorf("serial: raw terminal: %w", err), closeOut())
	}
	k := newKeyboard()
	go k.watch(os.Stdin)
	return &console{
		in: k, out: out, quit: k.quit,
		close: func() error {
			return errors.Join(unix.IoctlSetTermios(fd, unix.TCSETS, saved), closeOut())
		},
	}, nil
}

// withDeadlines opens a pipe or terminal once more, without blocking, so that a write
// which nobody reads can be cut short. The flag is the new opening's alone: set on f it
// would reach every process that shares f. What can't be opened again is used as it is.
func withDeadlines(f *os.File) *os.File {
	info, err := f.Stat()
	if err != nil || info.Mode()&(os.ModeNamedPipe|os.ModeCharDevice) == 0 {
		return f
	}
	again, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_WRONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return f
	}
	return again
}

// keyboard is a raw terminal's input. It is read at once and always, so that the keys
// that end the run work also while no guest is here, or one that does not read.
type keyboard struct {
	*backlog
	quit chan struct{}
	// guest is set once somebody reads: from then on Ctrl-C is the guest's.
	guest atomic.Bool
}

func newKeyboard() *keyboard { return &keyboard{backlog: newBacklog(), quit: make(chan struct{})} }

const (
	ctrlA = 0x01
	ctrlC = 0x03
)

func (k *keyboard) Read(p []byte) (int, error) {
	k.guest.Store(true)
	return k.backlog.Read(p)
}

// watch passes on what is typed. Ctrl-A x quits, a second Ctrl-A is one Ctrl-A for the
// guest, and Ctrl-C quits while there is no guest.
func (k *keyboard) watch(in io.Reader) {
	defer close(k.done)
	escaped := false // the last key was Ctrl-A
	key := make([]byte, 1)
	for {
		if _, err := io.ReadFull(in, key); err != nil {
			return
		}
		switch {
		case escaped && key[0] == 'x', key[0] == ctrlC && !k.guest.Load():
			close(k.quit)
			return
		case !escaped && key[0] == ctrlA:
			escaped = true
			continue
		}
		escaped = false
		_, _ = k.Write(key) // never fails
	}
}
