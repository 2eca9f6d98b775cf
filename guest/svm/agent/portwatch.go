package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// portWatch wakes up when the kernel announces a new device: a netlink socket
// for uevents, so that nothing is polled.
type portWatch struct{ fd int }

// waitMS bounds one wait: the name of a port may be set after its event.
const waitMS = 200

func newPortWatch() (*portWatch, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("uevents: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("uevents: %w", err)
	}
	return &portWatch{fd: fd}, nil
}

func (w *portWatch) wait() error {
	fds := []unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, waitMS)
	if err == unix.EINTR || n == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	var event [8192]byte
	_, _, err = unix.Recvfrom(w.fd, event[:], 0)
	return err
}

// Close frees the socket.
func (w *portWatch) Close() error { return unix.Close(w.fd) }
