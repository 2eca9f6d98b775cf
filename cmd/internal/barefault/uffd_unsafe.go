package barefault

import (
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// linux/userfaultfd.h
const (
	uffdAPI        = 0xaa
	uffdioAPI      = 0xc018aa3f
	uffdioRegister = 0xc020aa00
	uffdioCopy     = 0xc028aa03

	registerMissing = 1
	eventPagefault  = 0x12
	messageBytes    = 32
)

type apiArgs struct{ api, features, ioctls uint64 }

type registerArgs struct{ start, size, mode, ioctls uint64 }

type copyArgs struct {
	dst, src, size, mode uint64
	copied               int64
}

// The sizes are part of the ioctls' numbers.
var (
	_ [24]byte = [unsafe.Sizeof(apiArgs{})]byte{}
	_ [32]byte = [unsafe.Sizeof(registerArgs{})]byte{}
	_ [40]byte = [unsafe.Sizeof(copyArgs{})]byte{}
)

// faults is a userfaultfd that hears of missing pages in one mapping.
type faults struct {
	fd    int
	bytes []byte // the mapping; Go code must not touch what is missing in it
}

// openFaults maps memory of which every page is missing.
func openFaults(pages int) (*faults, error) {
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC, 0, 0)
	if errno != 0 {
		return nil, fmt.Errorf("userfaultfd: %w (run as root, or set vm.unprivileged_userfaultfd=1)", errno)
	}
	f := &faults{fd: int(fd)}
	var err error
	if f.bytes, err = mapShared(pages * pageBytes); err == nil {
		err = f.ioctl(uffdioAPI, unsafe.Pointer(&apiArgs{api: uffdAPI}))
	}
	if err == nil {
		err = f.ioctl(uffdioRegister, unsafe.Pointer(&registerArgs{
			start: f.address(), size: uint64(len(f.bytes)), mode: registerMissing,
		}))
	}
	if err != nil {
		f.close()
		return nil, fmt.Errorf("userfaultfd: %w", err)
	}
	return f, nil
}

func mapShared(size int) ([]byte, error) {
	fd, err := unix.MemfdCreate("barefault", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return nil, err
	}
	return unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

func (f *faults) close() {
	_ = unix.Close(f.fd) // whoever waits for a page gets an empty one
	if f.bytes != nil {
		_ = unix.Munmap(f.bytes)
	}
}

func (f *faults) ioctl(request uintptr, args unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(f.fd), request, uintptr(args)); errno != 0 {
		return os.NewSyscallError("ioctl", errno)
	}
	return nil
}

func (f *faults) address() uint64 { return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(f.bytes)))) }

// serve waits for one fault and copies page there.
func (f *faults) serve(page []byte) error {
	var message [messageBytes]byte
	for {
		_, err := unix.Read(f.fd, message[:])
		if err == nil {
			break
		}
		if err != unix.EINTR {
			return fmt.Errorf("read userfaultfd: %w", err)
		}
	}
	if message[0] != eventPagefault {
		return fmt.Errorf("userfaultfd reports event %#x", message[0])
	}
	at := binary.NativeEndian.Uint64(message[16:]) &^ (pageBytes - 1)
	return f.ioctl(uffdioCopy, unsafe.Pointer(&copyArgs{
		dst: at, src: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(page)))), size: pageBytes,
	}))
}
