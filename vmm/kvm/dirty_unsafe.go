package kvm

import (
	"sync/atomic"
	"unsafe"
)

// Flags of a dirty ring's entry (KVM_DIRTY_GFN_F_*).
const (
	entryDirty = 1 << 0 // the kernel has filled it
	entryReset = 1 << 1 // we have taken it
)

// getDirtyLog copies the bitmap of a slot, which has a bit for each of its pages,
// rounded up to whole words.
func (v *VM) getDirtyLog(slot uint32, bitmap []uint64) error {
	arg := dirtyLogArg{slot: slot, bitmap: address(bitmap)}
	_, err := ioctl(v.fd, reqGetDirtyLog, uintptr(unsafe.Pointer(&arg)))
	return err
}

// clearDirtyLog clears the bits that are set in bitmap and protects their pages.
func (v *VM) clearDirtyLog(slot uint32, pages uint64, bitmap []uint64) error {
	arg := clearDirtyLogArg{slot: slot, pages: uint32(pages), bitmap: address(bitmap)}
	_, err := ioctl(v.fd, reqClearDirtyLog, uintptr(unsafe.Pointer(&arg)))
	return err
}

// address is where the kernel finds a bitmap. Bitmaps belong to a dirtyLog, so
// they are on the heap and alive during the call.
func address(bitmap []uint64) uint64 {
	return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(bitmap))))
}

// takeEntries hands the new entries of this vCPU's ring to add, in order, and marks
// them taken; it returns how many. Preconditions: dirtyRing.mu held.
func (c *VCPU) takeEntries(add func(slot uint32, offset uint64) error) (int, error) {
	for n := 0; ; n++ {
		if len(c.ring) == 0 { // closed
			return n, nil
		}
		e := &c.ring[c.ringNext%uint32(len(c.ring))]
		// Acquire: slot and offset are valid once the flag is seen (KVM API, 8.29).
		if atomic.LoadUint32(&e.flags)&(entryDirty|entryReset) != entryDirty {
			return n, nil
		}
		if err := add(e.slot, e.offset); err != nil {
			return n, err
		}
		atomic.StoreUint32(&e.flags, entryDirty|entryReset) // release: we have read it
		c.ringNext++
	}
}
