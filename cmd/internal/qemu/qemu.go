package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Program is QEMU's name in Debian's package qemu-system-x86.
const Program = "qemu-system-x86_64"

const (
	dialTimeout  = 10 * time.Second
	pollInterval = 5 * time.Millisecond
)

// ErrNotInstalled says how to get the peer.
var ErrNotInstalled = errors.New("QEMU is not installed: `apt-get install qemu-system-x86`")

// Version returns QEMU's version, for example "7.2.22".
func Version(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, Program, "--version").Output()
	if errors.Is(err, exec.ErrNotFound) {
		return "", ErrNotInstalled
	}
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", Program, err)
	}
	return parseVersion(string(out))
}

// parseVersion reads "QEMU emulator version 7.2.22 (Debian ...)".
func parseVersion(text string) (string, error) {
	_, rest, ok := strings.Cut(text, "version ")
	fields := strings.Fields(rest)
	if !ok || len(fields) == 0 {
		return "", fmt.Errorf("%s --version printed %q", Program, text)
	}
	return fields[0], nil
}

// Common are the arguments that every machine here has.
func Common() []string {
	return []string{"-no-user-config", "-nodefaults", "-display", "none", "-no-reboot", "-accel", "kvm"}
}

// MicroVM is Common and the machine that starts fastest.
func MicroVM() []string {
	return append(Common(), "-machine", "microvm,rtc=off,pic=off,acpi=off,auto-kernel-cmdline=off,isa-serial=on")
}

// VM is a QEMU process with its QMP connection.
type VM struct {
	*Monitor
	cmd    *exec.Cmd
	stderr bytes.Buffer  // complete after exited
	exited chan struct{} // closed when the process has ended
}

// Start runs QEMU with args and connects to it. The caller ends it with Close.
func Start(ctx context.Context, dir, name string, args ...string) (*VM, error) {
	path := filepath.Join(dir, name+".qmp")
	v := &VM{
		cmd:    exec.Command(Program, append(args, "-name", name, "-qmp", "unix:"+path+",server=on,wait=off")...),
		exited: make(chan struct{}),
	}
	v.cmd.Stderr = &v.stderr
	v.cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL} // as package process has it
	if err := v.cmd.Start(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return nil, ErrNotInstalled
		}
		return nil, fmt.Errorf("start QEMU: %w", err)
	}
	go func() {
		_ = v.cmd.Wait() // killed, as a rule
		close(v.exited)
	}()
	if err := v.connect(ctx, path); err != nil {
		return nil, errors.Join(err, v.Close())
	}
	return v, nil
}

func (v *VM) connect(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		conn, err := net.Dial("unix", path)
		if err == nil {
			v.Monitor, err = NewMonitor(ctx, conn)
			return err
		}
		select {
		case <-v.exited:
			return fmt.Errorf("QEMU has ended: %s", strings.TrimSpace(v.stderr.String()))
		case <-ctx.Done():
			return fmt.Errorf("QEMU does not answer: %w", err)
		case <-tick.C:
		}
	}
}

// PID is QEMU's process id.
func (v *VM) PID() int { return v.cmd.Process.Pid }

// Close kills QEMU and waits for its end.
func (v *VM) Close() error {
	var err error
	if v.Monitor != nil {
		err = v.Monitor.Close()
	}
	_ = v.cmd.Process.Kill() // it may have ended
	<-v.exited
	return err
}
