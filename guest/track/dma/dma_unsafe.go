package dma

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	ioringRegisterBuffers = 0   // IORING_REGISTER_BUFFERS of <linux/io_uring.h>
	ioringParamsBytes     = 120 // sizeof(struct io_uring_params)
)

// pin registers mem as a buffer of a new io_uring. Closing the descriptor drops the pins.
func pin(mem []byte) (fd int, err error) {
	var params [ioringParamsBytes / 8]uint64 // all zero: no feature is asked for
	ring, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		return -1, fmt.Errorf("io_uring_setup: %w", errno)
	}
	unix.CloseOnExec(int(ring))
	iov := unix.Iovec{Base: &mem[0], Len: uint64(len(mem))}
	_, _, errno = unix.Syscall6(unix.SYS_IO_URING_REGISTER, ring, ioringRegisterBuffers, uintptr(unsafe.Pointer(&iov)), 1, 0, 0)
	if errno != 0 {
		_ = unix.Close(int(ring))
		return -1, fmt.Errorf("register buffers with io_uring (RLIMIT_MEMLOCK holds without CAP_IPC_LOCK): %w", errno)
	}
	return int(ring), nil
}

func addressOf(mem []byte) uint64 { return uint64(uintptr(unsafe.Pointer(&mem[0]))) }

// Load32 loads the word at offset, a multiple of 4, once and before all later loads: the device writes it.
func (p Page) Load32(offset int) uint32 {
	return atomic.LoadUint32((*uint32)(unsafe.Pointer(&p.Bytes[offset : offset+4][0])))
}
