package kvm

import "fmt"

// MSR is a model-specific register and its value: struct kvm_msr_entry.
type MSR struct {
	Index uint32
	_     uint32
	Value uint64
}

const (
	// maxMSRBatch is the most entries that KVM takes in one call (it wants fewer than
	// 256, its MAX_IO_MSRS).
	maxMSRBatch = 255
	// MaxSavedMSRs bounds what a damaged state can make Restore do.
	MaxSavedMSRs = 4096

	msrTSC             = 0x10
	msrTSCDeadline     = 0x6e0
	msrKVMWallClock    = 0x11
	msrKVMWallClockNew = 0x4b56_4d00
)

// restoredApart are MSRs that are saved, if KVM lists them, but not set with the
// others: the TSC by its offset, the deadline after the LAPIC timer's mode and the TSC.
// The wall clock MSRs are commands, not state: a write makes KVM store the
// time of boot in guest memory, computed from a kvmclock that may not be right
// yet, into a page that may not have arrived. Linux writes them each time it wants it.
var restoredApart = map[uint32]bool{
	msrTSC: true, msrTSCDeadline: true, msrKVMWallClock: true, msrKVMWallClockNew: true,
}

// readMSRs reads what can be read of indices. KVM stops at the first MSR it can't
// read and returns the count before it; that one is left out and the rest read on.
func (c *VCPU) readMSRs(indices []uint32) ([]MSR, error) {
	values := make([]MSR, 0, len(indices))
	batch := &c.scratch.msrs
	for len(indices) > 0 {
		n := min(len(indices), maxMSRBatch)
		for i, index := range indices[:n] {
			batch.entries[i] = MSR{Index: index}
		}
		read, err := c.getMSRBatch(n)
		if err != nil {
			return nil, err
		}
		values = append(values, batch.entries[:read]...)
		if read < n {
			read++ // past the one that stopped it
		}
		indices = indices[read:]
	}
	return values, nil
}

// writeMSRs sets all of msrs in their order. One that KVM refuses is an error that
// names it, since a register silently lost is a guest silently broken, unless it
// already has the value: that covers what is read-only and equal on both hosts.
func (c *VCPU) writeMSRs(msrs []MSR) error {
	batch := &c.scratch.msrs
	for len(msrs) > 0 {
		n := min(len(msrs), maxMSRBatch)
		copy(batch.entries[:], msrs[:n])
		written, err := c.setMSRBatch(n)
		if err != nil {
			return err
		}
		if written < n {
			if err := c.refused(msrs[written]); err != nil {
				return err
			}
			written++ // past the one that stopped it
		}
		msrs = msrs[written:]
	}
	return nil
}

// refused judges an MSR that KVM did not take.
func (c *VCPU) refused(m MSR) error {
	present, err := c.readMSRs([]uint32{m.Index})
	if err != nil {
		return err
	}
	if len(present) == 1 && present[0] == m {
		return nil
	}
	return fmt.Errorf("KVM_SET_MSRS: %w %#x (value %#x): the hosts differ in it", ErrMSRRefused, m.Index, m.Value)
}

// unlistedMSRs are guest state that KVM keeps but leaves out of its list: the
// memory type ranges (Intel SDM vol. 3, 12.11), 8 variable and 11 fixed ones. Machine-check banks are left
// out too and not saved: KVM fills them only when user space injects an error.
func unlistedMSRs() []uint32 {
	const (
		variableFirst, variableLast = 0x200, 0x20f
		fixed64K                    = 0x250
		fixed16KFirst, fixed16KLast = 0x258, 0x259
		fixed4KFirst, fixed4KLast   = 0x268, 0x26f
		defaultType                 = 0x2ff
	)
	indices := []uint32{fixed64K, defaultType}
	for _, r := range [][2]uint32{{variableFirst, variableLast}, {fixed16KFirst, fixed16KLast}, {fixed4KFirst, fixed4KLast}} {
		for i := r[0]; i <= r[1]; i++ {
			indices = append(indices, i)
		}
	}
	return indices
}
