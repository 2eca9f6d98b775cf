package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/guest/svm/channel"
)

// lingerTime is how long a command's descendants may hold its output open.
const lingerTime = 2 * time.Second

// runner runs one command at a time in a process group of its own.
type runner struct {
	conn *channel.Conn

	mu   sync.Mutex
	pgid int // of the running command, 0 if none
}

func newRunner(conn *channel.Conn) *runner { return &runner{conn: conn} }

// start runs c and sends its output and end, without waiting for them.
func (r *runner) start(c channel.Command) {
	go func() {
		exit := r.run(c)
		if err := r.conn.SendJSON(channel.KindExit, exit); err != nil {
			fmt.Fprintln(os.Stderr, "agent: send exit:", err)
		}
	}()
}

func (r *runner) run(c channel.Command) channel.Exit {
	if len(c.Argv) == 0 {
		return channel.Exit{Code: -1, Error: "empty command"}
	}
	cmd := exec.Command(c.Argv[0], c.Argv[1:]...)
	cmd.Env, cmd.Dir = c.Env, c.Dir
	out := &outputWriter{conn: r.conn}
	cmd.Stdout, cmd.Stderr = out, out // one pipe keeps their order
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = lingerTime
	if err := r.begin(cmd); err != nil {
		return channel.Exit{Code: -1, Error: err.Error()}
	}
	err := cmd.Wait()
	// What the command left running would disturb the next one.
	r.kill()
	r.mu.Lock()
	r.pgid = 0
	r.mu.Unlock()
	return exitOf(cmd, err)
}

// begin starts cmd so that a kill from now on reaches it.
func (r *runner) begin(cmd *exec.Cmd) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pgid != 0 {
		return errors.New("a command is running")
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	r.pgid = cmd.Process.Pid
	return nil
}

// kill ends the running command and all of its process group.
func (r *runner) kill() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pgid == 0 {
		return
	}
	if err := unix.Kill(-r.pgid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		fmt.Fprintln(os.Stderr, "agent: kill:", err)
	}
}

func exitOf(cmd *exec.Cmd, err error) channel.Exit {
	exit := channel.Exit{Code: cmd.ProcessState.ExitCode()}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		exit.Signal = unix.SignalName(status.Signal())
	}
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok && !errors.Is(err, exec.ErrWaitDelay) {
		exit.Error = err.Error()
	}
	return exit
}

// outputWriter sends what is written to it as Output frames.
type outputWriter struct{ conn *channel.Conn }

func (w *outputWriter) Write(p []byte) (int, error) {
	for sent := 0; sent < len(p); {
		n := min(len(p)-sent, channel.MaxPayloadBytes)
		if err := w.conn.Send(channel.KindOutput, p[sent:sent+n]); err != nil {
			return sent, err
		}
		sent += n
	}
	return len(p), nil
}
