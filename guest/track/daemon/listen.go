package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Listen makes the socket, which all users may connect to, in a directory that is made if needed. A socket
// that nobody listens on any more is replaced.
func Listen(path string) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	l, err := listen(path)
	if errors.Is(err, unix.EADDRINUSE) {
		if info, statErr := os.Lstat(path); statErr != nil || info.Mode().Type() != os.ModeSocket {
			return nil, err
		}
		conn, dialErr := net.Dial("unix", path)
		if dialErr == nil {
			return nil, errors.Join(fmt.Errorf("%s: a daemon listens there", path), conn.Close())
		}
		if !errors.Is(dialErr, unix.ECONNREFUSED) {
			return nil, err
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
		l, err = listen(path)
	}
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o666); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func listen(path string) (*net.UnixListener, error) {
	return net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
}
