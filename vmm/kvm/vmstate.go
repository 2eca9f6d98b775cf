package kvm

import (
	"fmt"

	gokvm "github.com/bobuhiro11/gokvm/kvm"
)

// VMState is what KVM holds for a VM beside its vCPUs and memory. Chips are the
// bytes of the kernel's own structs, which are part of its stable interface.
type VMState struct {
	PICMaster []byte `json:"pic_master"` // struct kvm_pic_state
	PICSlave  []byte `json:"pic_slave"`
	IOAPIC    []byte `json:"ioapic"` // struct kvm_ioapic_state
	// PIT is struct kvm_pit_state2 with its names; load times are host monotonic
	// time and restart at Restore.
	PIT gokvm.PITState2 `json:"pit"`
	// ClockNS is kvmclock, in nanoseconds since the guest was created.
	ClockNS uint64 `json:"clock_ns"`
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
		*chip.data = append([]byte(nil), v.scratch.irqchip.Chip[:chip.sizeBytes]...)
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
		if len(*chip.data) != chip.sizeBytes {
			return fmt.Errorf("%w: %s has %d bytes, not %d", ErrBadState, chip.name, len(*chip.data), chip.sizeBytes)
		}
		v.scratch.irqchip = gokvm.IRQChip{ChipID: chip.id}
		copy(v.scratch.irqchip.Chip[:], *chip.data)
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
	name      string
	id        uint32
	sizeBytes int
	data      *[]byte
}

func (s *VMState) chips() [3]savedChip {
	const (
		picBytes    = 16
		ioapicBytes = 24 + ioapicPins*8
	)
	return [...]savedChip{
		{"PIC master", irqchipPICMaster, picBytes, &s.PICMaster},
		{"PIC slave", irqchipPICSlave, picBytes, &s.PICSlave},
		{"IOAPIC", irqchipIOAPIC, ioapicBytes, &s.IOAPIC},
	}
}
