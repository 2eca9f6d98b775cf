package socket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrInUse is wrapped when something lives at the socket's path already.
var ErrInUse = errors.New("socket in use")

const (
	maxPathBytes = 107 // sun_path has 108 with its NUL, unix(7)
	socketMode   = 0o600

	dirLockTries    = 200
	dirLockInterval = 10 * time.Millisecond
	probeTimeout    = time.Second
)

// Listener is a Unix socket that removes its own file, and only its own, when closed.
type Listener struct {
	*net.UnixListener
	path string
	file os.FileInfo // the socket we bound, to know it again
}

// Listen binds a socket that only this user can connect to. A socket file that nobody listens
// on any more is replaced; doc.go says how that is safe against a second starter.
func Listen(path string) (*Listener, error) {
	if err := CheckPath(path); err != nil {
		return nil, err
	}
	unlock, err := lockDir(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	defer unlock()
	if err := removeStale(path); err != nil {
		return nil, err
	}
	return bind(path)
}

// CheckPath refuses what the kernel would cut off or take for something else.
func CheckPath(path string) error {
	switch {
	case path == "":
		return errors.New("socket: the path is empty")
	case len(path) > maxPathBytes:
		return fmt.Errorf("socket: the path has %d bytes, the kernel takes %d: choose a shorter one", len(path), maxPathBytes)
	case strings.ContainsRune(path, 0):
		return errors.New("socket: the path holds a zero byte")
	case path[0] == '@':
		return fmt.Errorf("socket %s: an abstract socket has no file mode to protect it: choose a path", path)
	}
	return nil
}

// lockDir takes the directory's flock. It leaves no file behind, unlike a lock file, and the
// kernel drops it with the process.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the directory %s does not exist: create it", dir)
	}
	if err != nil {
		return nil, err
	}
	for try := 0; ; try++ {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil // closing unlocks
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) || try == dirLockTries {
			_ = f.Close()
			return nil, fmt.Errorf("lock the directory %s: %w", dir, err)
		}
		time.Sleep(dirLockInterval)
	}
}

// removeStale leaves path free, or says why it can't be had. The caller holds the directory's lock.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%w: %s is a file that is not a socket: choose another path", ErrInUse, path)
	}
	conn, err := net.DialTimeout("unix", path, probeTimeout)
	if err == nil {
		_ = conn.Close()
		return fmt.Errorf("%w: a process listens on %s: stop it, or choose another path", ErrInUse, path)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("%w: %s: %w: choose another path", ErrInUse, path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove the stale socket: %w", err)
	}
	return nil
}

func bind(path string) (*Listener, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		// On a socket not yet bound this sets the mode its file will have, less the umask, so
		// there is no instant at which others may connect, and no umask to change and restore.
		var chmodErr error
		if err := c.Control(func(fd uintptr) { chmodErr = unix.Fchmod(int(fd), socketMode) }); err != nil {
			return err
		}
		return chmodErr
	}}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	u := l.(*net.UnixListener)
	u.SetUnlinkOnClose(false) // it would unlink by name whatever is there
	info, err := os.Lstat(path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("socket: %w", err), u.Close())
	}
	return &Listener{UnixListener: u, path: path, file: info}, nil
}

// Close removes the socket's file if it is still ours, then stops listening. In this order
// nobody can find the file stale and replace it in between. Closing twice is harmless.
func (l *Listener) Close() error {
	var removeErr error
	if info, err := os.Lstat(l.path); err == nil && os.SameFile(info, l.file) {
		removeErr = os.Remove(l.path)
	}
	if err := l.UnixListener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return errors.Join(removeErr, err)
	}
	return removeErr
}
