package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/vmm/api"
)

const (
	startTimeout  = 20 * time.Second
	retryInterval = 2 * time.Millisecond
	maxStderr     = 64 << 10
)

// VMM is a child process that runs one machine.
type VMM struct {
	API     *api.Client
	APIPath string

	cmd    *exec.Cmd
	stderr *tail
	exited chan struct{}
	err    error // of Wait; valid after exited
}

// Start runs exe with `run --api DIR/NAME.sock` and args, and returns when its API
// answers. The caller ends it with Close.
func Start(ctx context.Context, exe, dir, name string, env []string, args ...string) (*VMM, error) {
	path := filepath.Join(dir, name+".sock")
	v := &VMM{
		API: api.NewClient(path), APIPath: path,
		cmd:    exec.Command(exe, append([]string{"run", "--api", path, "--id", name}, args...)...),
		stderr: &tail{}, exited: make(chan struct{}),
	}
	v.cmd.Stderr = v.stderr
	v.cmd.Env = append(v.cmd.Environ(), env...)
	// Linux sends Pdeathsig when the thread that started the child ends, not the process.
	// That is the same as long as no goroutine ends while it is locked to its thread,
	// as a vCPU's does: this package is for processes that run no machine.
	v.cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	if err := v.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		v.err = v.cmd.Wait()
		close(v.exited)
	}()
	if err := v.awaitAPI(ctx); err != nil {
		return nil, errors.Join(err, v.Close())
	}
	return v, nil
}

func (v *VMM) awaitAPI(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(retryInterval)
	defer tick.Stop()
	for {
		if _, err := v.API.Info(ctx); err == nil {
			return nil
		}
		select {
		case <-v.exited:
			return fmt.Errorf("%s ended before it served: %w: %s", v.APIPath, errOr(v.err), v.stderr)
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w", v.APIPath, ctx.Err())
		case <-tick.C:
		}
	}
}

// PID is the child's process id.
func (v *VMM) PID() int { return v.cmd.Process.Pid }

// Exited is closed when the child has ended.
func (v *VMM) Exited() <-chan struct{} { return v.exited }

// Err is how the child ended: nil for exit code 0. It is valid after Exited.
func (v *VMM) Err() error { return v.err }

// Stderr is the last of what the child has logged.
func (v *VMM) Stderr() string { return v.stderr.String() }

// Kill ends the child without a chance to clean up.
func (v *VMM) Kill() error {
	err := v.cmd.Process.Kill()
	<-v.exited
	return err
}

// Close stops the child, in any state, and waits for it.
func (v *VMM) Close() error {
	select {
	case <-v.exited:
		return nil
	default:
	}
	if err := v.cmd.Process.Signal(unix.SIGTERM); err != nil {
		<-v.exited // it has just ended
		return nil
	}
	select {
	case <-v.exited:
		return nil
	case <-time.After(startTimeout):
		return errors.Join(fmt.Errorf("%s did not end on SIGTERM", v.APIPath), v.Kill())
	}
}

func errOr(err error) error {
	if err == nil {
		return errors.New("exit code 0")
	}
	return err
}

// tail keeps the last bytes that were written to it.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf.Write(p)
	if over := t.buf.Len() - maxStderr; over > 0 {
		t.buf.Next(over)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.String()
}
