package kvm

import (
	"errors"
	"fmt"
	"slices"

	gokvm "github.com/bobuhiro11/gokvm/kvm"
)

// Parts of a saved vCPU, as KVM has them.
type (
	XCRs      = gokvm.XCRS
	DebugRegs = gokvm.DebugRegs
	Events    = gokvm.VCPUEvents
)

// VCPUState is everything that makes a vCPU go on elsewhere as if nothing had been. Its saved form is
// binary: savedform.go.
type VCPUState struct {
	CPUID     []CPUIDEntry
	Regs      Regs
	Sregs     Sregs
	XCRs      XCRs
	XSave     []byte // struct kvm_xsave
	MSRs      []MSR
	TSC       TSC
	LAPIC     []byte // struct kvm_lapic_state
	DebugRegs DebugRegs
	Events    Events
	MPState   uint32 // KVM_MP_STATE_*
}

// State saves the vCPU. It must be paused and its last exit completed (Run with
// immediate exit set, until unix.EINTR), else ErrUnfinishedExit. For TSCs that never go
// back all vCPUs of the VM are paused before the first is saved.
func (c *VCPU) State() (*VCPUState, error) {
	if c.unfinished {
		return nil, ErrUnfinishedExit
	}
	s := &VCPUState{CPUID: slices.Clone(c.cpuid)}
	// mp_state first: KVM_GET_MP_STATE accepts INIT and SIPI that are pending, which
	// changes all the rest. MSRs before the LAPIC, whose timer goes on meanwhile: a
	// deadline that expires between the two is then saved twice, as deadline and as
	// request, not lost. Events last, when nothing changes them any more.
	for _, save := range []func(*VCPUState) error{
		c.saveMPState, c.saveMSRs, c.saveLAPIC, c.saveRegs, c.saveFPU, c.saveDebugRegs, c.saveEvents,
	} {
		if err := save(s); err != nil {
			return nil, fmt.Errorf("save vCPU %d: %w", c.id, err)
		}
	}
	return s, nil
}

// Restore is the counterpart of State, after VM.Restore. It too wants the last exit
// completed: its completion would change the restored registers. After an error
// the vCPU is good for nothing but Close. The order matters: CPUID says which registers exist; the control registers enable the LAPIC's mode, which
// decides what its page means; its timer's mode decides whether the deadline MSR
// takes a value, which is compared with the TSC; pending events belong to the
// finished registers; and mp_state, last, lets the vCPU run.
func (c *VCPU) Restore(s *VCPUState) error {
	if c.unfinished {
		return ErrUnfinishedExit
	}
	if err := c.check(s); err != nil {
		return fmt.Errorf("restore vCPU %d: %w", c.id, err)
	}
	for _, restore := range []func(*VCPUState) error{
		c.restoreCPUID, c.restoreRegs, c.restoreFPU, c.restoreMSRs, c.restoreLAPIC,
		c.restoreTSC, c.restoreDebugRegs, c.restoreEvents, c.restoreMPState,
	} {
		if err := restore(s); err != nil {
			return fmt.Errorf("restore vCPU %d: %w", c.id, err)
		}
	}
	return nil
}

// check refuses what no State of this package could have produced for this host.
func (c *VCPU) check(s *VCPUState) error {
	switch {
	case len(s.LAPIC) != gokvm.LAPICRegSize:
		return fmt.Errorf("%w: LAPIC of %d bytes, not %d", ErrBadState, len(s.LAPIC), gokvm.LAPICRegSize)
	case len(s.XSave) < xsaveHeaderBytes || len(s.XSave) > c.vm.xsaveBytes:
		return fmt.Errorf("%w: XSAVE area of %d bytes, this host takes %d to %d", ErrBadState, len(s.XSave), xsaveHeaderBytes, c.vm.xsaveBytes)
	case len(s.MSRs) > MaxSavedMSRs:
		return fmt.Errorf("%w: %d MSRs", ErrBadState, len(s.MSRs))
	case s.XCRs.NrXRCS > uint32(len(s.XCRs.Registers)):
		return fmt.Errorf("%w: %d extended control registers", ErrBadState, s.XCRs.NrXRCS)
	}
	return nil
}

func (c *VCPU) saveMPState(s *VCPUState) error {
	err := gokvm.GetMPState(uintptr(c.fd), &c.scratch.mp)
	s.MPState = c.scratch.mp.State
	return named("KVM_GET_MP_STATE", err)
}

func (c *VCPU) restoreMPState(s *VCPUState) error {
	c.scratch.mp.State = s.MPState
	return named("KVM_SET_MP_STATE", gokvm.SetMPState(uintptr(c.fd), &c.scratch.mp))
}

func (c *VCPU) saveLAPIC(s *VCPUState) error {
	err := gokvm.GetLocalAPIC(uintptr(c.fd), &c.scratch.lapic)
	s.LAPIC = slices.Clone(c.scratch.lapic.Regs[:])
	return named("KVM_GET_LAPIC", err)
}

func (c *VCPU) restoreLAPIC(s *VCPUState) error {
	copy(c.scratch.lapic.Regs[:], s.LAPIC)
	return named("KVM_SET_LAPIC", gokvm.SetLocalAPIC(uintptr(c.fd), &c.scratch.lapic))
}

func (c *VCPU) saveMSRs(s *VCPUState) (err error) {
	if s.MSRs, err = c.readMSRs(c.vm.savedMSRs); err != nil {
		return err
	}
	s.TSC, err = c.readTSC(s.MSRs)
	return err
}

func (c *VCPU) restoreMSRs(s *VCPUState) error {
	return c.writeMSRs(slices.DeleteFunc(slices.Clone(s.MSRs), func(m MSR) bool { return restoredApart[m.Index] }))
}

// restoreTSC sets the counter and then the deadline that refers to it.
func (c *VCPU) restoreTSC(s *VCPUState) error {
	if err := c.setTSC(s.TSC); err != nil {
		return err
	}
	return c.writeMSRs(slices.DeleteFunc(slices.Clone(s.MSRs), func(m MSR) bool { return m.Index != msrTSCDeadline }))
}

func (c *VCPU) restoreCPUID(s *VCPUState) error {
	if slices.Equal(s.CPUID, c.cpuid) {
		return nil
	}
	return c.SetCPUID(s.CPUID)
}

func (c *VCPU) saveRegs(s *VCPUState) error {
	regs, err := c.Regs()
	if err != nil {
		return err
	}
	sregs, err := c.Sregs()
	if err != nil {
		return err
	}
	s.Regs, s.Sregs = *regs, *sregs
	return nil
}

func (c *VCPU) restoreRegs(s *VCPUState) error {
	return errors.Join(c.SetSregs(&s.Sregs), c.SetRegs(&s.Regs))
}

func (c *VCPU) saveFPU(s *VCPUState) error {
	if err := gokvm.GetXCRS(uintptr(c.fd), &c.scratch.xcrs); err != nil {
		return named("KVM_GET_XCRS", err)
	}
	s.XCRs = c.scratch.xcrs
	s.XSave = make([]byte, c.vm.xsaveBytes)
	return c.getXSave(s.XSave)
}

func (c *VCPU) restoreFPU(s *VCPUState) error {
	c.scratch.xcrs = s.XCRs
	if err := gokvm.SetXCRS(uintptr(c.fd), &c.scratch.xcrs); err != nil {
		return named("KVM_SET_XCRS", err)
	}
	area := make([]byte, c.vm.xsaveBytes) // the kernel reads all of it
	copy(area, s.XSave)
	return c.setXSave(area)
}

func (c *VCPU) saveDebugRegs(s *VCPUState) error {
	err := gokvm.GetDebugRegs(uintptr(c.fd), &c.scratch.debug)
	s.DebugRegs = c.scratch.debug
	return named("KVM_GET_DEBUGREGS", err)
}

func (c *VCPU) restoreDebugRegs(s *VCPUState) error {
	c.scratch.debug = s.DebugRegs
	return named("KVM_SET_DEBUGREGS", gokvm.SetDebugRegs(uintptr(c.fd), &c.scratch.debug))
}

func (c *VCPU) saveEvents(s *VCPUState) error {
	err := gokvm.GetVCPUEvents(uintptr(c.fd), &c.scratch.events)
	s.Events = c.scratch.events
	return named("KVM_GET_VCPU_EVENTS", err)
}

// RaiseInvalidOpcode gives the guest an invalid-opcode exception (#UD) at its next instruction. It belongs to the
// thread that calls Run.
func (c *VCPU) RaiseInvalidOpcode() error {
	const invalidOpcode = 6
	var s VCPUState
	if err := c.saveEvents(&s); err != nil {
		return err
	}
	s.Events.E = gokvm.Exception{Inject: 1, Nr: invalidOpcode}
	return c.restoreEvents(&s)
}

func (c *VCPU) restoreEvents(s *VCPUState) error {
	c.scratch.events = s.Events
	return named("KVM_SET_VCPU_EVENTS", gokvm.SetVCPUEvents(uintptr(c.fd), &c.scratch.events))
}
