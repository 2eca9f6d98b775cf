package kvm

import (
	"encoding/binary"
	"fmt"
)

// A vCPU's saved form, little endian, without padding:
//
//	savedFixed
//	CPUIDEntries entries of CPUID, 7 uint32 each
//	XSaveBytes   bytes of struct kvm_xsave
//	LAPICBytes   bytes of struct kvm_lapic_state
//	MSRs         registers: index uint32, value uint64
//
// Not JSON: a vCPU is some 700 numbers, and to parse their text took longer than all
// ioctls of a restore, with the guest stopped.

// savedFixed is the part of a VCPUState that always has the same size. Its fields are the
// kernel's own structs, whose sizes are checked (requests_unsafe.go).
type savedFixed struct {
	Regs      Regs
	Sregs     Sregs
	XCRs      XCRs
	TSC       TSC
	DebugRegs DebugRegs
	Events    Events
	MPState   uint32

	CPUIDEntries, XSaveBytes, LAPICBytes, MSRs uint32
}

// savedFixedBytes is the length of savedFixed on the wire.
var savedFixedBytes = binary.Size(savedFixed{})

const (
	savedCPUIDBytes = 7 * 4
	savedMSRBytes   = 4 + 8
)

// AppendBinary appends the saved form.
func (s *VCPUState) AppendBinary(b []byte) ([]byte, error) {
	f := savedFixed{
		Regs: s.Regs, Sregs: s.Sregs, XCRs: s.XCRs, TSC: s.TSC, DebugRegs: s.DebugRegs, Events: s.Events, MPState: s.MPState,
		CPUIDEntries: uint32(len(s.CPUID)), XSaveBytes: uint32(len(s.XSave)), LAPICBytes: uint32(len(s.LAPIC)), MSRs: uint32(len(s.MSRs)),
	}
	for _, part := range []any{&f, s.CPUID, s.XSave, s.LAPIC, s.MSRs} {
		var err error
		if b, err = binary.Append(b, binary.LittleEndian, part); err != nil {
			return nil, fmt.Errorf("save a vCPU: %w", err)
		}
	}
	return b, nil
}

// UnmarshalBinary is the counterpart of AppendBinary. The error wraps ErrBadState. Nothing of data
// is kept. What the values mean is checked by Restore.
func (s *VCPUState) UnmarshalBinary(data []byte) error {
	var f savedFixed
	if _, err := binary.Decode(data, binary.LittleEndian, &f); err != nil {
		return fmt.Errorf("%w: a vCPU of %d bytes: %w", ErrBadState, len(data), err)
	}
	data = data[savedFixedBytes:]
	// In 64 bits no product or sum of these overflows. That all are there bounds what is allocated.
	want := uint64(f.CPUIDEntries)*savedCPUIDBytes + uint64(f.XSaveBytes) + uint64(f.LAPICBytes) + uint64(f.MSRs)*savedMSRBytes
	if uint64(len(data)) != want {
		return fmt.Errorf("%w: a vCPU's lists of %d bytes, not %d", ErrBadState, len(data), want)
	}
	*s = VCPUState{
		Regs: f.Regs, Sregs: f.Sregs, XCRs: f.XCRs, TSC: f.TSC, DebugRegs: f.DebugRegs, Events: f.Events, MPState: f.MPState,
		CPUID: make([]CPUIDEntry, f.CPUIDEntries), XSave: make([]byte, f.XSaveBytes), LAPIC: make([]byte, f.LAPICBytes), MSRs: make([]MSR, f.MSRs),
	}
	for _, part := range []any{s.CPUID, s.XSave, s.LAPIC, s.MSRs} {
		n, err := binary.Decode(data, binary.LittleEndian, part)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrBadState, err)
		}
		data = data[n:]
	}
	return nil
}
