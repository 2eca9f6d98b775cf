package identity

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrUnprovable: the process lives where its death cannot be seen from here.
var ErrUnprovable = errors.New("the peer's death cannot be proved from this process")

// Watch tells when one process has ended.
type Watch interface {
	// Done is closed once the process is proved dead. It stays open while that is not proved.
	Done() <-chan struct{}
	// Close ends the watch and frees what it holds. Done then stays as it is.
	Close()
}

// Liveness opens watches. Tests replace it.
type Liveness interface {
	// Watch starts to observe the process. Its error wraps ErrUnprovable.
	Watch(Process) (Watch, error)
}

// Host proves deaths on this host by pidfd.
type Host struct{}

// Watch implements Liveness. A process that has ended already gives a watch whose Done is closed.
func (Host) Watch(p Process) (Watch, error) {
	self, err := Self()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnprovable, err)
	}
	if !self.Comparable(p) {
		return nil, fmt.Errorf("%w: it is on another host or in another namespace", ErrUnprovable)
	}
	if p.PID <= 0 {
		return nil, fmt.Errorf("%w: PID %d", ErrUnprovable, p.PID)
	}
	fd, err := unix.PidfdOpen(p.PID, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return deadWatch(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: pidfd_open: %w", ErrUnprovable, err)
	}
	// The number is judged after the descriptor is held: from here on it cannot change its owner unseen.
	ticks, err := startTicks(p.PID)
	if err == nil && ticks == p.StartTicks {
		return newPidfdWatch(fd), nil
	}
	defer unix.Close(fd)
	// That /proc does not show a process proves nothing: hidepid hides living ones.
	if err == nil || exited(fd) {
		return deadWatch(), nil
	}
	return nil, fmt.Errorf("%w: %w", ErrUnprovable, err)
}

// exited reports whether the process of a pidfd has ended, with all its threads.
func exited(pidfd int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1 && fds[0].Revents&unix.POLLIN != 0
}

func deadWatch() Watch {
	w := &pidfdWatch{done: make(chan struct{})}
	close(w.done)
	return w
}

type pidfdWatch struct {
	file  *os.File // nil when the process was dead at the start
	done  chan struct{}
	ended sync.WaitGroup
	once  sync.Once
}

func newPidfdWatch(fd int) *pidfdWatch {
	w := &pidfdWatch{file: os.NewFile(uintptr(fd), "pidfd"), done: make(chan struct{})}
	w.ended.Go(w.wait)
	return w
}

// wait parks the goroutine in the runtime's poller until the pidfd is readable: no thread, no timer.
func (w *pidfdWatch) wait() {
	raw, err := w.file.SyscallConn()
	if err != nil {
		return
	}
	dead := false
	err = raw.Read(func(fd uintptr) bool {
		dead = exited(int(fd))
		return dead
	})
	if err == nil && dead {
		close(w.done)
	}
}

func (w *pidfdWatch) Done() <-chan struct{} { return w.done }

func (w *pidfdWatch) Close() {
	w.once.Do(func() {
		if w.file == nil {
			return
		}
		_ = w.file.Close()
		w.ended.Wait()
	})
}
