package svm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/fineline-vmm/fineline/guest/svm/channel"
)

const (
	// bootTimeout is ten times what a boot takes on two slow CPUs.
	bootTimeout = time.Minute
	// killGrace is how long a killed command may take to be reported as ended.
	killGrace = 20 * time.Second
	// powerOffGrace is how long the machine may take to power off.
	powerOffGrace = 15 * time.Second
)

// ErrMachine: the emulated machine stopped or does not answer. Its console log
// tells why.
var ErrMachine = errors.New("emulated machine failed")

// MachineOptions describe an emulated machine.
type MachineOptions struct {
	Kernel      string // path of a vmlinux with a PVH note
	Initramfs   string // path of a cpio archive with the agent as /init
	ConsoleLog  string // file for the console's output, overwritten
	CPUs        int    // that processes run on; at least 1
	MemoryBytes uint64 // rounded down to MiB
}

// Machine is a running emulated machine. Its methods are for one goroutine,
// but for Close.
type Machine struct {
	Hello channel.Hello

	options MachineOptions
	cmd     *exec.Cmd
	socket  net.Conn
	conn    *channel.Conn
	stderr  tail
	exited  chan struct{} // closed when QEMU has ended
	close   func() error
}

// Start boots a machine and waits until its agent says hello. The machine is
// killed when ctx ends; the caller must Close it in any case.
func Start(ctx context.Context, o MachineOptions) (*Machine, error) {
	host, guest, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer guest.Close()
	m := &Machine{options: o, socket: host, conn: channel.New(host), exited: make(chan struct{})}
	m.close = sync.OnceValue(m.shutdown)

	m.cmd = exec.CommandContext(ctx, "qemu-system-x86_64", qemuArgs(o)...)
	m.cmd.ExtraFiles = []*os.File{guest} // descriptor 3, see qemuArgs
	m.cmd.Stderr = &m.stderr
	// A killed test run must not leave an emulator that eats two CPUs.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.cmd.Start(); err != nil {
		_ = host.Close()
		return nil, fmt.Errorf("start QEMU (Debian package qemu-system-x86): %w", err)
	}
	go func() {
		defer close(m.exited)
		_ = m.cmd.Wait() // how it ended shows on the channel and the console
		_ = host.Close() // unblocks a reader even if QEMU's end was inherited
	}()

	if err := m.awaitHello(); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// awaitHello reads the agent's first frame.
func (m *Machine) awaitHello() error {
	if err := m.socket.SetReadDeadline(time.Now().Add(bootTimeout)); err != nil {
		return m.failure("boot", err)
	}
	if err := m.conn.ReceiveJSON(channel.KindHello, &m.Hello); err != nil {
		return m.failure("boot", err)
	}
	return m.socket.SetReadDeadline(time.Time{})
}

// Run runs c and copies its output to out until it ends. When ctx ends the
// command is killed and the error wraps the context's cause. An error that wraps
// ErrMachine means that no further command can run.
func (m *Machine) Run(ctx context.Context, c channel.Command, out io.Writer) (channel.Exit, error) {
	if ctx.Err() != nil {
		return channel.Exit{}, context.Cause(ctx)
	}
	if err := m.conn.SendJSON(channel.KindRun, c); err != nil {
		return channel.Exit{}, m.failure("send command", err)
	}
	stop := context.AfterFunc(ctx, func() {
		// Errors show as the end of the stream or by the deadline.
		_ = m.conn.Send(channel.KindKill, nil)
		_ = m.socket.SetReadDeadline(time.Now().Add(killGrace))
	})
	defer stop()
	var outErr error
	for {
		kind, payload, err := m.conn.Receive()
		if err != nil {
			return channel.Exit{}, errors.Join(context.Cause(ctx), m.failure("receive", err))
		}
		switch kind {
		case channel.KindOutput:
			if outErr == nil {
				_, outErr = out.Write(payload)
			}
		case channel.KindExit:
			exit, err := decodeExit(payload)
			return exit, errors.Join(err, outErr, context.Cause(ctx))
		default:
			return channel.Exit{}, m.failure("receive", fmt.Errorf("%w: kind %d", channel.ErrKind, kind))
		}
	}
}

// Close powers the machine off, kills it if that takes too long, and waits for
// its end. Any goroutine may call it, more than once.
func (m *Machine) Close() error { return m.close() }

func (m *Machine) shutdown() error {
	// An error means that the machine is gone already.
	_ = m.conn.Send(channel.KindPowerOff, nil)
	timer := time.NewTimer(powerOffGrace)
	defer timer.Stop()
	select {
	case <-m.exited:
		return nil
	case <-timer.C:
	}
	if err := m.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill QEMU: %w", err)
	}
	<-m.exited
	return fmt.Errorf("%w: it did not power off in %v, see %s", ErrMachine, powerOffGrace, m.options.ConsoleLog)
}

// failure says what the machine was doing and where to look.
func (m *Machine) failure(doing string, err error) error {
	text := ""
	if said := m.stderr.String(); said != "" {
		text = ": QEMU said: " + said
	}
	return fmt.Errorf("%w: %s: %w%s; its console is in %s", ErrMachine, doing, err, text, m.options.ConsoleLog)
}
