package kvm

import gokvm "github.com/bobuhiro11/gokvm/kvm"

// PIT is the in-kernel PIT. Load times are host monotonic time and restart at Restore.
type PIT = gokvm.PITState2

const (
	picBytes    = 16 // struct kvm_pic_state
	ioapicBytes = 24 + ioapicPins*8
)

// VMState is what KVM holds for a VM beside its vCPUs and memory. Chips are the
// bytes of the kernel's own structs, which are part of its stable interface. Its saved form is
// binary: savedform.go.
type VMState struct {
	PICMaster, PICSlave [picBytes]byte
	IOAPIC              [ioapicBytes]byte // struct kvm_ioapic_state
	PIT                 PIT
	// ClockNS is kvmclock, in nanoseconds since the guest was created.
	ClockNS uint64
}

// State saves the interrupt controllers, the PIT and kvmclock. All vCPUs are
// paused, and were before the first of them was saved.
func (v *VM) State() (*VMState, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := new(VMState)
	for _, chip := range s.chips() {
		v.scratch.irqchip = gokvm.IRQChip{ChipID: chip.id}
		if err := gokvm.GetIRQChip(uintptr(v.fd), &v.scratch.irqchip); err != nil {
			return nil, named("KVM_GET_IRQCHIP "+chip.name, err)
		}
		copy(chip.data, v.scratch.irqchip.Chip[:])
	}
	if err := gokvm.GetPIT2(uintptr(v.fd), &v.scratch.pit); err != nil {
		return nil, named("KVM_GET_PIT2", err)
	}
	s.PIT = v.scratch.pit
	v.scratch.clock = gokvm.ClockData{}
	if err := gokvm.GetClock(uintptr(v.fd), &v.scratch.clock); err != nil {
		return nil, named("KVM_GET_CLOCK", err)
	}
	s.ClockNS = v.scratch.clock.Clock
	return s, nil
}

// Restore is the counterpart of State. It comes before the vCPUs' Restore: an
// IOAPIC evaluates its lines when it is set, and the LAPICs set after it hold
// exactly what was saved; and the vCPUs' TSCs follow the clock set here.
func (v *VM) Restore(s *VMState) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, chip := range s.chips() {
		v.scratch.irqchip = gokvm.IRQChip{ChipID: chip.id}
		copy(v.scratch.irqchip.Chip[:], chip.data)
		if err := gokvm.SetIRQChip(uintptr(v.fd), &v.scratch.irqchip); err != nil {
			return named("KVM_SET_IRQCHIP "+chip.name, err)
		}
	}
	v.scratch.pit = s.PIT
	if err := gokvm.SetPIT2(uintptr(v.fd), &v.scratch.pit); err != nil {
		return named("KVM_SET_PIT2", err)
	}
	// Without KVM_CLOCK_REALTIME: see doc.go.
	v.scratch.clock = gokvm.ClockData{Clock: s.ClockNS}
	if err := gokvm.SetClock(uintptr(v.fd), &v.scratch.clock); err != nil {
		return named("KVM_SET_CLOCK", err)
	}
	v.tscMu.Lock()
	defer v.tscMu.Unlock()
	v.tsc = tscShift{}
	return nil
}

// savedChip is one interrupt controller and its place in a VMState.
type savedChip struct {
	name string
	id   uint32
	data []byte
}

func (s *VMState) chips() [3]savedChip {
	return [...]savedChip{
		{"PIC master", irqchipPICMaster, s.PICMaster[:]},
		{"PIC slave", irqchipPICSlave, s.PICSlave[:]},
		{"IOAPIC", irqchipIOAPIC, s.IOAPIC[:]},
	}
}
