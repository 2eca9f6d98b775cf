package kvm

import "fmt"

// Saved forms are the kernel's structs as they lie in memory, one after the other: little endian, every
// padding named. Not JSON: a vCPU is some 700 numbers, and to parse their text took longer than all
// ioctls of a restore, with the guest stopped.
//
//	VMState      savedVM
//	VCPUState    savedVCPU
//	             CPUIDEntries times CPUIDEntry
//	             XSaveBytes   bytes of struct kvm_xsave
//	             LAPICBytes   bytes of struct kvm_lapic_state
//	             MSRs         times MSR

// savedVM is the saved form of a VMState.
type savedVM struct {
	PICMaster, PICSlave [picBytes]byte
	IOAPIC              [ioapicBytes]byte
	PIT                 PIT
	ClockNS             uint64
}

// savedVCPU is the part of a VCPUState that always has the same size.
type savedVCPU struct {
	Regs      Regs
	Sregs     Sregs
	XCRs      XCRs
	TSC       TSC
	DebugRegs DebugRegs
	Events    Events
	MPState   uint32

	CPUIDEntries, XSaveBytes, LAPICBytes, MSRs uint32

	_ uint32
}

// AppendBinary appends the saved form.
func (s *VCPUState) AppendBinary(b []byte) ([]byte, error) {
	f := savedVCPU{
		Regs: s.Regs, Sregs: s.Sregs, XCRs: s.XCRs, TSC: s.TSC, DebugRegs: s.DebugRegs, Events: s.Events, MPState: s.MPState,
		CPUIDEntries: uint32(len(s.CPUID)), XSaveBytes: uint32(len(s.XSave)), LAPICBytes: uint32(len(s.LAPIC)), MSRs: uint32(len(s.MSRs)),
	}
	for _, part := range [][]byte{image(&f), imageOf(s.CPUID), s.XSave, s.LAPIC, imageOf(s.MSRs)} {
		b = append(b, part...)
	}
	return b, nil
}

// UnmarshalBinary is the counterpart of AppendBinary. The error wraps ErrBadState. Nothing of data
// is kept. What the values mean is checked by Restore.
func (s *VCPUState) UnmarshalBinary(data []byte) error {
	var f savedVCPU
	if len(data) < len(image(&f)) {
		return fmt.Errorf("%w: a vCPU of %d bytes", ErrBadState, len(data))
	}
	data = data[copy(image(&f), data):]
	// In 64 bits none of this overflows. That all are there bounds what is allocated.
	want := uint64(f.CPUIDEntries)*savedCPUIDBytes + uint64(f.XSaveBytes) + uint64(f.LAPICBytes) + uint64(f.MSRs)*savedMSRBytes
	if uint64(len(data)) != want {
		return fmt.Errorf("%w: a vCPU's lists of %d bytes, not %d", ErrBadState, len(data), want)
	}
	*s = VCPUState{
		Regs: f.Regs, Sregs: f.Sregs, XCRs: f.XCRs, TSC: f.TSC, DebugRegs: f.DebugRegs, Events: f.Events, MPState: f.MPState,
		CPUID: make([]CPUIDEntry, f.CPUIDEntries), XSave: make([]byte, f.XSaveBytes), LAPIC: make([]byte, f.LAPICBytes), MSRs: make([]MSR, f.MSRs),
	}
	for _, part := range [][]byte{imageOf(s.CPUID), s.XSave, s.LAPIC, imageOf(s.MSRs)} {
		data = data[copy(part, data):]
	}
	return nil
}

// AppendBinary appends the saved form.
func (s *VMState) AppendBinary(b []byte) ([]byte, error) {
	return append(b, image((*savedVM)(s))...), nil
}

// UnmarshalBinary is the counterpart of AppendBinary. The error wraps ErrBadState.
func (s *VMState) UnmarshalBinary(data []byte) error {
	form := image((*savedVM)(s))
	if len(data) != len(form) {
		return fmt.Errorf("%w: a VM of %d bytes, not %d", ErrBadState, len(data), len(form))
	}
	copy(form, data)
	return nil
}
