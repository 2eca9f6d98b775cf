package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/vmm"
)

func TestKeyboard(t *testing.T) {
	for _, tt := range []struct {
		name, typed string
		guest       bool // somebody reads
		want        string
		quits       bool
	}{
		{"text", "ab\r", true, "ab\r", false},
		{"quit", "a\x01xb", true, "a", true},
		{"quit before a guest is here", "\x01x", false, "", true},
		{"Ctrl-A for the guest", "\x01\x01x", true, "\x01x", false},
		{"Ctrl-A and another key", "\x01yx", true, "yx", false},
		{"Ctrl-C for the guest", "\x03", true, "\x03", false},
		{"Ctrl-C before a guest is here", "a\x03", false, "a", true},
		{"more than fits, then quit", strings.Repeat("a", backlogBytes+1) + "\x01x", true, strings.Repeat("a", backlogBytes), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := newKeyboard()
			k.guest.Store(tt.guest)
			k.watch(strings.NewReader(tt.typed)) // returns though nobody reads
			close(k.bytes)
			var got []byte
			for b := range k.bytes {
				got = append(got, b)
			}
			quit := false
			select {
			case <-k.quit:
				quit = true
			default:
			}
			if string(got) != tt.want || quit != tt.quits {
				t.Errorf("guest gets %.40q, quit %v", got, quit)
			}
		})
	}
}

// listen is a serial port on a socket.
func listen(t *testing.T) (*serialSocket, *backlog, func() net.Conn) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tty")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s, in := newSerialSocket(l), newBacklog()
	served := make(chan struct{})
	go func() { s.serve(in); close(served) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		<-served
	})
	return s, in, func() net.Conn {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
}

var past = time.Unix(1, 0)

// TestSerialSocketDeadline: a write that waits for a client, or for one that does not
// read, can be cut short, and goes on where it was.
func TestSerialSocketDeadline(t *testing.T) {
	s, _, dial := listen(t)
	ended := make(chan error)
	write := func(p []byte) (n int) {
		go func() {
			var err error
			n, err = s.Write(p)
			ended <- err
		}()
		if err := s.SetWriteDeadline(past); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
		if err := s.SetWriteDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := write([]byte("x")); n != 0 {
		t.Errorf("%d bytes written to nobody", n)
	}
	text := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // more than a socket holds
	conn := dial()
	n := write(text)
	if n == len(text) {
		t.Fatal("the client does not read and takes all")
	}
	go func() {
		_, err := s.Write(text[n:])
		ended <- err
	}()
	got := make([]byte, len(text))
	if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, text) {
		t.Errorf("the client has another text: %v", err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestSerialSocketClientsLeave: a client that leaves is missed though the guest reads
// nothing, and the next one is served.
func TestSerialSocketClientsLeave(t *testing.T) {
	s, _, dial := listen(t)
	first := dial()
	if _, err := first.Write(make([]byte, 4*backlogBytes)); err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	next := dial()
	wrote := make(chan error, 1)
	go func() {
		// What is written before the first client is missed is lost with it.
		for {
			if _, err := s.Write([]byte("x")); err != nil {
				wrote <- err
				return
			}
		}
	}()
	if _, err := io.ReadFull(next, make([]byte, 1)); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-wrote; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// lateListener gives out a connection only when the console was closed.
type lateListener struct {
	conn net.Conn
	wait chan struct{}
}

func (l *lateListener) Accept() (net.Conn, error) { <-l.wait; return l.conn, nil }
func (l *lateListener) Addr() net.Addr            { return nil }
func (l *lateListener) Close() error              { close(l.wait); return nil }

func TestSerialSocketClosedWhileAccepting(t *testing.T) {
	here, there := net.Pipe()
	s := newSerialSocket(&lateListener{here, make(chan struct{})})
	served := make(chan struct{})
	go func() { s.serve(newBacklog()); close(served) }()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	<-served
	if _, err := there.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the late client was not hung up on: %v", err)
	}
}

// TestStdoutDeadline: a pipe that nobody reads can be given a deadline, and the pipe as
// others have it still blocks.
func TestStdoutDeadline(t *testing.T) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	r, w := os.NewFile(uintptr(fds[0]), "r"), os.NewFile(uintptr(fds[1]), "w")
	defer r.Close()
	defer w.Close()
	again := withDeadlines(w)
	defer again.Close()
	if err := again.SetWriteDeadline(past); err != nil {
		t.Fatal(err)
	}
	if _, err := again.Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write: %v", err)
	}
	if flags, err := unix.FcntlInt(w.Fd(), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
		t.Errorf("flags of the shared pipe %#x, %v", flags, err)
	}
	regular, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer regular.Close()
	if withDeadlines(regular) != regular {
		t.Error("a regular file was opened again: its offset is lost")
	}
}

// openTerminal returns both ends of a new terminal.
func openTerminal(t *testing.T) (here, there *os.File) {
	t.Helper()
	here, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals: %v", err)
	}
	t.Cleanup(func() { here.Close() })
	number, err := unix.IoctlGetInt(int(here.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(here.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	if there, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Skipf("no pseudo-terminals: %v", err)
	}
	t.Cleanup(func() { there.Close() })
	return here, there
}

// TestTerminalKeysWithoutGuest: who waits for a guest can give up, and gets the terminal
// back as it was.
func TestTerminalKeysWithoutGuest(t *testing.T) {
	for name, keys := range map[string]string{"Ctrl-A x": "\x01x", "Ctrl-C": "\x03"} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			here, there := openTerminal(t)
			before, err := unix.IoctlGetTermios(int(there.Fd()), unix.TCGETS)
			if err != nil {
				t.Fatal(err)
			}
			var stderr bytes.Buffer
			cmd := exec.CommandContext(h.ctx, program(t), "run", "--incoming", "unix:"+h.path("in"), "--journal", h.path("j"))
			cmd.Stdin, cmd.Stdout, cmd.Stderr = there, there, &stderr
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			h.eventually("the terminal is raw", func() bool {
				now, err := unix.IoctlGetTermios(int(there.Fd()), unix.TCGETS)
				return err == nil && now.Lflag&unix.ICANON == 0
			})
			if _, err := here.WriteString(keys); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("%v: %s", err, &stderr)
			}
			after, err := unix.IoctlGetTermios(int(there.Fd()), unix.TCGETS)
			if err != nil || *after != *before {
				t.Errorf("the terminal was left changed: %v", err)
			}
		})
	}
}

// TestStdoutReaderLeaves: a reader that goes away does not take the machine with it.
func TestStdoutReaderLeaves(t *testing.T) {
	h := newHouse(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(h.ctx, program(t), "run", "--kernel", "builtin:hello", "--memory", "64M")
	cmd.Stdout, cmd.Stderr = w, &stderr
	if err := r.Close(); err != nil { // before the guest has said a word
		t.Fatal(err)
	}
	// Not killed by SIGPIPE: it ends by itself and says what was lost.
	if err := cmd.Run(); exitCode(err) != 1 || !strings.Contains(stderr.String(), "serial output are lost") {
		t.Errorf("%v: %s", err, &stderr)
	}
}

// TestFlagsThatDisagree: each flag of a destination that was given must be the source's.
func TestFlagsThatDisagree(t *testing.T) {
	here := vmm.Config{CPUs: 1, MemoryBytes: 1 << 30, CPUModel: vmm.CPUHost}
	there := vmm.Config{CPUs: 2, MemoryBytes: 1 << 20, CPUModel: vmm.CPUBaseline, HugePages: true, DirtyRing: true, NoReboot: true}
	flags := []string{"cpus", "memory", "cpu", "huge-pages", "dirty", "no-reboot"}
	for _, flag := range flags {
		given := func(name string) bool { return name == flag }
		if err := agree(given, here, there); err == nil || !strings.Contains(err.Error(), "--"+flag+" ") {
			t.Errorf("%s: %v", flag, err)
		}
		if err := agree(given, here, here); err != nil {
			t.Error(err)
		}
	}
	err := agree(func(name string) bool { return name == "memory" }, here, there)
	if want := "--memory 1G here, the source has 1M"; err == nil || err.Error() != want {
		t.Errorf("%v, want %q", err, want)
	}
	if err := agree(func(name string) bool { return !slices.Contains(flags, name) }, here, there); err != nil {
		t.Error(err)
	}
}
