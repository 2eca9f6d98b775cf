package kvm

import (
	"unsafe"
)

// getMSRBatch reads the first n entries of the batch and returns how many KVM did.
func (c *VCPU) getMSRBatch(n int) (int, error) {
	c.scratch.msrs.count = uint32(n)
	return ioctl(c.fd, reqGetMSRs, uintptr(unsafe.Pointer(&c.scratch.msrs)))
}

// setMSRBatch writes the first n entries of the batch and returns how many KVM did.
func (c *VCPU) setMSRBatch(n int) (int, error) {
	c.scratch.msrs.count = uint32(n)
	return ioctl(c.fd, reqSetMSRs, uintptr(unsafe.Pointer(&c.scratch.msrs)))
}

// getXSave fills area, whose size is what KVM said of the VM.
func (c *VCPU) getXSave(area []byte) error {
	_, err := ioctl(c.fd, reqGetXSave2, uintptr(unsafe.Pointer(unsafe.SliceData(area))))
	return err
}

func (c *VCPU) setXSave(area []byte) error {
	_, err := ioctl(c.fd, reqSetXSave, uintptr(unsafe.Pointer(unsafe.SliceData(area))))
	return err
}

// The attribute KVM_VCPU_TSC_OFFSET of the group KVM_VCPU_TSC_CTRL; both are 0.
func tscOffsetAttr(value *uint64) deviceAttr {
	return deviceAttr{addr: uint64(uintptr(unsafe.Pointer(value)))}
}

func (c *VCPU) tscOffset() (uint64, error) {
	// In scratch, so on the heap: the kernel follows the address inside the struct,
	// which the compiler does not see as a pointer.
	attr := tscOffsetAttr(&c.scratch.tscOffset)
	_, err := ioctl(c.fd, reqGetDeviceAttr, uintptr(unsafe.Pointer(&attr)))
	return c.scratch.tscOffset, err
}

func (c *VCPU) setTSCOffset(offset uint64) error {
	c.scratch.tscOffset = offset
	attr := tscOffsetAttr(&c.scratch.tscOffset)
	_, err := ioctl(c.fd, reqSetDeviceAttr, uintptr(unsafe.Pointer(&attr)))
	return err
}
