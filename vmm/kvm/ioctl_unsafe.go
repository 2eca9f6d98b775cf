package kvm

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// ioctl issues r and retries when a signal interrupts it: the Go runtime preempts
// with signals, and no request but KVM_RUN (which has its own call) is meant to
// be interrupted. The error wraps the errno and names the request.
//
// uintptrescapes: a pointer converted in the call's argument list is moved to the
// heap and kept alive. Without it the kernel would write to a stack that Go may
// have moved meanwhile (gokvm's Ioctl loses results that way).
//
//go:uintptrescapes
func ioctl(fd int, r request, arg uintptr) (int, error) {
	for {
		result, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), r.number, arg)
		switch errno {
		case 0:
			return int(result), nil
		case unix.EINTR:
		default:
			return int(result), named(r.name, errno)
		}
	}
}

// named gives an ioctl's error its name; nil stays nil.
func named(ioctl string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", ioctl, err)
}
