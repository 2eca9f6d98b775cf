package kvm

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/memory"
)

// dirtyRingPageOffset is KVM_DIRTY_LOG_PAGE_OFFSET of x86: where in the vCPU's
// mapping, in pages, the dirty ring lies.
const dirtyRingPageOffset = 64

// mapRun maps the kvm_run pages and, if the VM has one, the dirty ring.
func (c *VCPU) mapRun() (err error) {
	const protection = unix.PROT_READ | unix.PROT_WRITE
	if c.run, err = unix.Mmap(c.fd, 0, c.vm.sys.mmapBytes, protection, unix.MAP_SHARED); err != nil {
		return fmt.Errorf("mmap kvm_run of vCPU %d: %w", c.id, err)
	}
	c.page = (*runPage)(unsafe.Pointer(unsafe.SliceData(c.run)))
	if c.vm.ring == nil {
		return nil
	}
	ring, err := unix.Mmap(c.fd, dirtyRingPageOffset*memory.PageSize, c.vm.ring.sizeBytes, protection, unix.MAP_SHARED)
	if err != nil {
		return errors.Join(fmt.Errorf("mmap dirty ring of vCPU %d: %w", c.id, err), c.unmapRun())
	}
	entries := len(ring) / int(unsafe.Sizeof(dirtyGFN{}))
	c.ring = unsafe.Slice((*dirtyGFN)(unsafe.Pointer(unsafe.SliceData(ring))), entries)
	return nil
}

func (c *VCPU) unmapRun() error {
	var errs []error
	if c.ring != nil {
		bytes := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(c.ring))), len(c.ring)*int(unsafe.Sizeof(dirtyGFN{})))
		errs = append(errs, named("munmap dirty ring", unix.Munmap(bytes)))
	}
	errs = append(errs, named("munmap kvm_run", unix.Munmap(c.run)))
	c.run, c.page, c.ring = nil, nil, nil
	return errors.Join(errs...)
}

// setImmediateExit stores the byte kvm_run.immediate_exit. It is stored with the
// whole first word, since Go has no atomic byte; the word's other fields are
// padding and request_interrupt_window, which is unused with an in-kernel irqchip.
func (c *VCPU) setImmediateExit(on bool) {
	const immediateExit = 1 << 8 // byte 1 of the word
	var word uint32
	if on {
		word = immediateExit
	}
	atomic.StoreUint32(&c.page.control, word)
}

func (c *VCPU) getRegs(r *Regs) error {
	_, err := ioctl(c.fd, reqGetRegs, uintptr(unsafe.Pointer(r)))
	return err
}

// Run enters the guest: exactly one KVM_RUN, so that a kick is never swallowed.
// nil means that Exit has something to say. unix.EINTR: immediate exit, or a signal,
// which need not be a kick (the Go runtime has its own); unix.EAGAIN: a vCPU that
// waits for its SIPI woke up. The errno comes bare since this is the hot path.
func (c *VCPU) Run() error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(c.fd), reqRun.number, 0)
	if errno != 0 {
		c.unfinished = false // whatever was handed out is completed on entry
		return errno
	}
	c.unfinished = ExitReason(c.page.exitReason).handsOut()
	return nil
}
