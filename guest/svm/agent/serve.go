package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/guest/svm/channel"
)

// problemEnv carries what went wrong in PID 1 to the server, a line each.
const problemEnv = "FINELINE_PROBLEM"

// serve says hello and obeys the host until it asks for power-off or is gone.
func serve() error {
	port, err := openPort()
	if err != nil {
		return err
	}
	defer port.Close()
	conn := channel.New(port)
	if err := conn.SendJSON(channel.KindHello, hello()); err != nil {
		return fmt.Errorf("hello: %w", err)
	}
	r := newRunner(conn)
	defer r.kill()
	for {
		kind, payload, err := conn.Receive()
		if errors.Is(err, io.EOF) {
			return nil // the host is gone
		}
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		switch kind {
		case channel.KindRun:
			var c channel.Command
			if err := json.Unmarshal(payload, &c); err != nil {
				return fmt.Errorf("command: %w", err)
			}
			r.start(c)
		case channel.KindKill:
			r.kill()
		case channel.KindPowerOff:
			return nil
		default:
			return fmt.Errorf("%w: kind %d", channel.ErrKind, kind)
		}
	}
}

// openPort finds the port by its name. The driver makes it while its module
// loads, but announces the name in a message of its own, so the file is
// awaited.
func openPort() (*os.File, error) {
	watch, err := newPortWatch()
	if err != nil {
		return nil, err
	}
	defer watch.Close()
	for {
		if port, ok := findPort(); ok {
			// Blocking I/O on purpose: the driver answers non-blocking reads
			// with end of file while the host end is not connected yet.
			fd, err := unix.Open(port, unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err != nil {
				return nil, fmt.Errorf("open %s: %w", port, err)
			}
			return os.NewFile(uintptr(fd), port), nil
		}
		if err := watch.wait(); err != nil {
			return nil, fmt.Errorf("wait for the virtio-serial port: %w", err)
		}
	}
}

func findPort() (string, bool) {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return "", false
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err == nil && strings.TrimSpace(string(text)) == channel.PortName {
			return "/dev/" + filepath.Base(filepath.Dir(name)), true
		}
	}
	return "", false
}

func hello() channel.Hello {
	h := channel.Hello{CPUs: runtime.NumCPU()}
	if p := os.Getenv(problemEnv); p != "" {
		h.Problems = strings.Split(p, "\n")
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err == nil {
		h.Release = unix.ByteSliceToString(uts.Release[:])
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err == nil {
		h.UptimeMS = now.Nano() / 1e6
	}
	if _, err := os.Stat("/dev/kvm"); err != nil {
		h.Problems = append(h.Problems, err.Error())
	}
	return h
}
