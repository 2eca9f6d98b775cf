package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/guest/track"
)

// Peer is the process at the other end of a connection.
type Peer struct {
	PID   int
	UID   uint32
	Check func() error // whether /proc/PID is that process, and its user's
	Close func() error
}

// Identify asks the kernel who connected.
func Identify(conn *net.UnixConn) (Peer, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var cred *unix.Ucred
	var pidfd int
	var failure error
	err = raw.Control(func(fd uintptr) {
		// SO_PEERPIDFD is there since Linux 6.5.
		if cred, failure = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); failure != nil {
			return
		}
		pidfd, failure = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEERPIDFD)
		if errors.Is(failure, unix.ENOPROTOOPT) {
			pidfd, failure = unix.PidfdOpen(int(cred.Pid), 0)
		}
	})
	if err := errors.Join(err, failure); err != nil {
		return Peer{}, fmt.Errorf("who connected: %w", err)
	}
	unix.CloseOnExec(pidfd)
	p := Peer{PID: int(cred.Pid), UID: cred.Uid, Close: func() error { return unix.Close(pidfd) }}
	p.Check = func() error { return check(pidfd, p.PID, p.UID) }
	return p, nil
}

func check(pidfd, pid int, uid uint32) error {
	if err := checkOwner(pid, uid); err != nil {
		return err
	}
	// Last: while it lives, its number is its own.
	if err := unix.PidfdSendSignal(pidfd, 0, nil, 0); err != nil {
		return fmt.Errorf("%w: %w", track.ErrGone, err)
	}
	return nil
}

// checkOwner looks whose /proc/PID is: the effective user's, or root's if the process must not be looked into.
func checkOwner(pid int, uid uint32) error {
	info, err := os.Stat("/proc/" + strconv.Itoa(pid))
	if err != nil {
		return fmt.Errorf("%w: %w", track.ErrGone, err)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || stat.Uid != uid {
		return fmt.Errorf("%w: process %d has not the rights of the user who connected", track.ErrPermission, pid)
	}
	return nil
}
