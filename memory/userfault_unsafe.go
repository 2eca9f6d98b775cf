package memory

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From linux/userfaultfd.h.
const (
	uffdAPI = 0xaa

	uffdFeatureMissingShmem = 1 << 5
	uffdFeatureThreadID     = 1 << 8
	uffdFeatureMinorShmem   = 1 << 10

	uffdModeMissing = 1 << 0
	uffdModeMinor   = 1 << 2

	uffdEventPagefault = 0x12

	// _IOWR, _IOR and _IO of type 0xaa.
	uffdioAPI        = 0xc018aa3f
	uffdioRegister   = 0xc020aa00
	uffdioUnregister = 0x8010aa01
	uffdioContinue   = 0xc020aa07
	uffdioWake       = 0x8010aa02
	uffdIocNew       = 0xaa00 // of /dev/userfaultfd
)

type uffdAPIArg struct{ api, features, ioctls uint64 }

type uffdRange struct{ start, size uint64 }

type uffdRegisterArg struct {
	uffdRange
	mode, ioctls uint64
}

type uffdContinueArg struct {
	uffdRange
	mode   uint64
	mapped int64
}

// uffdMessage is struct uffd_msg of a page fault.
type uffdMessage struct {
	event   uint8
	_       [7]uint8
	flags   uint64
	address uint64
	thread  uint32
	_       uint32
}

var (
	_ [24]byte = [unsafe.Sizeof(uffdAPIArg{})]byte{}
	_ [16]byte = [unsafe.Sizeof(uffdRange{})]byte{}
	_ [32]byte = [unsafe.Sizeof(uffdRegisterArg{})]byte{}
	_ [32]byte = [unsafe.Sizeof(uffdContinueArg{})]byte{}
	_ [32]byte = [unsafe.Sizeof(uffdMessage{})]byte{}
)

// userfaults is an open userfaultfd.
type userfaults struct {
	file       *os.File
	conn       syscall.RawConn
	registered []uffdRange
}

// CheckDemand says whether this host can serve missing pages, and what to enable if not.
func CheckDemand() error {
	u, err := openUserfaults()
	if err != nil {
		return err
	}
	return u.close()
}

// openUserfaults wraps ErrNoUserfaults. A descriptor of UFFD_USER_MODE_ONLY, which everybody may open, is of no
// use: KVM faults in the kernel.
func openUserfaults() (*userfaults, error) {
	const flags = unix.O_CLOEXEC | unix.O_NONBLOCK
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, flags, 0, 0)
	if errno == unix.EPERM {
		fd, errno = newByDevice(flags)
	}
	if errno != 0 {
		return nil, fmt.Errorf("%w: userfaultfd: %w; run as root, or: sysctl vm.unprivileged_userfaultfd=1, "+
			"or give the user access to /dev/userfaultfd", ErrNoUserfaults, errno)
	}
	arg := uffdAPIArg{api: uffdAPI, features: uffdFeatureMissingShmem | uffdFeatureMinorShmem | uffdFeatureThreadID}
	if errno := uffdIoctl(fd, uffdioAPI, uintptr(unsafe.Pointer(&arg))); errno != 0 {
		return nil, errors.Join(fmt.Errorf("%w: UFFDIO_API: %w; minor faults of shared memory need Linux 5.14 or newer",
			ErrNoUserfaults, errno), unix.Close(int(fd)))
	}
	u := &userfaults{file: os.NewFile(fd, "userfaultfd")}
	var err error
	if u.conn, err = u.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, u.file.Close())
	}
	return u, nil
}

// newByDevice is for hosts that give post-copy to those who may open the device (Linux 6.1).
func newByDevice(flags uintptr) (uintptr, unix.Errno) {
	device, err := unix.Open("/dev/userfaultfd", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, unix.EPERM // which is what the system call said
	}
	defer func() { _ = unix.Close(device) }()
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(device), uffdIocNew, flags)
	return fd, errno
}

//go:uintptrescapes
func uffdIoctl(fd, request, arg uintptr) unix.Errno {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, request, arg)
		if errno != unix.EINTR {
			return errno
		}
	}
}

// ioctl keeps the descriptor open while it is used: another goroutine may close it. A closed one is EBADF.
//
//go:uintptrescapes
func (u *userfaults) ioctl(request, arg uintptr) (errno unix.Errno) {
	if u.conn.Control(func(fd uintptr) { errno = uffdIoctl(fd, request, arg) }) != nil {
		return unix.EBADF
	}
	return errno
}

// register has all faults in a range of the address space reported.
func (u *userfaults) register(addr uintptr, sizeBytes uint64) error {
	arg := uffdRegisterArg{uffdRange: uffdRange{uint64(addr), sizeBytes}, mode: uffdModeMissing | uffdModeMinor}
	if errno := u.ioctl(uffdioRegister, uintptr(unsafe.Pointer(&arg))); errno != 0 {
		return os.NewSyscallError("UFFDIO_REGISTER", errno)
	}
	u.registered = append(u.registered, arg.uffdRange)
	return nil
}

// close ends the reporting, and has all who wait try again. It unregisters first, though the kernel does so when the
// descriptor is closed: before Linux 6.15 a vCPU whose fault KVM serves at that moment tries for ever, and holds the lock of
// the address space that the closing waits for ("mm/userfaultfd: fix release hang over concurrent GUP", fe4cdc2c4e24).
func (u *userfaults) close() error {
	for _, r := range u.registered {
		_ = u.ioctl(uffdioUnregister, uintptr(unsafe.Pointer(&r))) // if it fails, nothing is lost: the closing does it
	}
	u.registered = nil
	return u.file.Close()
}

// mapPages maps the pages of a range that are in the file, up to the first that is not, or is mapped
// already, and wakes who waits for the mapped ones. It returns how many bytes were mapped; none with an error.
func (u *userfaults) mapPages(addr uintptr, sizeBytes uint64) (mappedBytes uint64, err error) {
	for {
		arg := uffdContinueArg{uffdRange: uffdRange{uint64(addr), sizeBytes}}
		errno := u.ioctl(uffdioContinue, uintptr(unsafe.Pointer(&arg)))
		switch {
		case arg.mapped > 0:
			return uint64(arg.mapped), nil
		case errno != unix.EAGAIN: // EAGAIN: the address space is just being changed
			return 0, os.NewSyscallError("UFFDIO_CONTINUE", errno)
		}
	}
}

// wake lets who waits in a range try again.
func (u *userfaults) wake(addr uintptr, sizeBytes uint64) error {
	arg := uffdRange{uint64(addr), sizeBytes}
	if errno := u.ioctl(uffdioWake, uintptr(unsafe.Pointer(&arg))); errno != 0 {
		return os.NewSyscallError("UFFDIO_WAKE", errno)
	}
	return nil
}

// closeCheckMS is how late a reader of faults may learn that the descriptor is to be closed; Close waits for it.
const closeCheckMS = 5

// faults has take called with read, a function that reads as many faults as there are and fit, without waiting: at
// once, and when it has read none, once more when there was one. Who faulted may have gone again by then.
// It returns an error when the descriptor is closed.
//
// It waits in the kernel, on a thread of its own, as who reads a connection in a hurry does: package migration/postcopy says why (prompt.go).
func (u *userfaults) faults(take func(read func([]uffdMessage) int)) error {
	for waited, found := false, false; !found; {
		err := u.conn.Control(func(fd uintptr) {
			if waited {
				there := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
				if n, err := unix.Poll(there, closeCheckMS); n == 0 || err != nil {
					return
				}
			}
			found, waited = waited, true
			take(func(into []uffdMessage) int {
				raw := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(into))), len(into)*int(unsafe.Sizeof(uffdMessage{})))
				n, err := unix.Read(int(fd), raw)
				if err != nil { // EAGAIN
					return 0
				}
				found = true
				return n / int(unsafe.Sizeof(uffdMessage{}))
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// forget drops the translations of a part of the guest mapping: its next use faults. Contents stay in the file.
func (m *ram) forget(off, n uint64) error {
	b := unsafe.Slice((*byte)(unsafe.Add(m.guest, off)), n)
	return os.NewSyscallError("madvise(MADV_DONTNEED)", unix.Madvise(b, unix.MADV_DONTNEED))
}

// forbid takes the guest mapping away from the hypervisor, but keeps its addresses taken.
func (m *ram) forbid() error {
	b := unsafe.Slice((*byte)(m.guest), m.sizeBytes)
	return os.NewSyscallError("mprotect", unix.Mprotect(b, unix.PROT_NONE))
}
