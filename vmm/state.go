package vmm

import (
	"errors"
	"fmt"

	"github.com/fineline-vmm/fineline/vmm/kvm"
	"github.com/fineline-vmm/fineline/vmm/kvm/jsonlist"
)

// state is all of a machine but its memory.
type state struct {
	Resume  bool         `json:"resume"` // the guest is to run after a restore
	VCPUs   vcpuStates   `json:"vcpus"`
	Kernel  *kvm.VMState `json:"kernel_devices"` // PICs, IOAPIC, PIT, clock
	Devices deviceStates `json:"devices"`
}

// vcpuStates has one element a vCPU; its JSON is bounded.
type vcpuStates []*kvm.VCPUState

func (l *vcpuStates) UnmarshalJSON(raw []byte) (err error) {
	*l, err = jsonlist.Decode[*kvm.VCPUState](raw, MaxCPUs)
	return err
}

// errNotPaused guards Save and Restore.
var errNotPaused = errors.New("the machine must be paused")

// Save returns the sealed state of a paused machine; memory is not in it. resume is
// what Restore will return: whether the guest is to run then.
func (m *Machine) Save(resume bool) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.status != Paused {
		return nil, errNotPaused
	}
	s, err := m.save()
	if err != nil {
		return nil, err
	}
	s.Resume = resume
	return seal(s)
}

// save is Save without check and seal. Preconditions: nobody else uses the machine, all
// vCPUs parked.
func (m *Machine) save() (*state, error) {
	devices, err := m.board.state()
	if err != nil {
		return nil, err
	}
	s := &state{VCPUs: make(vcpuStates, len(m.cpus)), Devices: devices}
	for i, c := range m.cpus {
		err := c.do(func(v *kvm.VCPU) (err error) {
			s.VCPUs[i], err = v.State()
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("save vCPU %d: %w", i, err)
		}
	}
	if s.Kernel, err = m.vm.State(); err != nil {
		return nil, fmt.Errorf("save the in-kernel devices: %w", err)
	}
	return s, nil
}

// Restore puts a saved state into a machine that was just built, or one that is
// paused, and returns the resume that was given to Save. The machine is paused
// after it. After an error the machine can only be closed.
func (m *Machine) Restore(sealed []byte) (resume bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.status != Created && m.status != Paused {
		return false, errNotPaused
	}
	var s state
	if err := open(sealed, &s); err != nil {
		return false, err
	}
	if err := m.restoreKVM(&s); err != nil {
		return false, err
	}
	if err := m.board.restore(s.Devices); err != nil {
		return false, err
	}
	m.status = Paused
	return s.Resume, nil
}

// restoreKVM restores what KVM holds: vCPUs and in-kernel devices.
// Preconditions: m.mu held, all vCPUs parked.
func (m *Machine) restoreKVM(s *state) error {
	if len(s.VCPUs) != len(m.cpus) {
		return fmt.Errorf("%w: it has %d vCPUs, the machine %d", ErrCorrupt, len(s.VCPUs), len(m.cpus))
	}
	if s.Kernel == nil {
		return fmt.Errorf("%w: no in-kernel devices", ErrCorrupt)
	}
	// In-kernel irqchip first: setting an IOAPIC evaluates its lines, and the
	// LAPICs restored after it then hold exactly what was saved.
	if err := m.vm.Restore(s.Kernel); err != nil {
		return fmt.Errorf("restore the in-kernel devices: %w", err)
	}
	for i, c := range m.cpus {
		if s.VCPUs[i] == nil {
			return fmt.Errorf("%w: vCPU %d is missing", ErrCorrupt, i)
		}
		if err := c.do(func(v *kvm.VCPU) error { return v.Restore(s.VCPUs[i]) }); err != nil {
			return fmt.Errorf("restore vCPU %d: %w", i, err)
		}
	}
	return nil
}

// resetGuest starts the guest over. After an error the guest is in pieces and stays
// parked. Preconditions: m.mu held.
func (m *Machine) resetGuest() error {
	m.park() // no hold: a reset keeps what the console has not taken
	m.dropEvents()
	if err := m.powerCycle(); err != nil {
		return err
	}
	if err := m.loadGuest(); err != nil {
		return err
	}
	if m.status == Running {
		m.release()
	}
	return nil
}

// powerCycle brings a machine whose guest has run back to its power-on state. The
// clock's battery-backed memory and serial output not yet written survive, as they
// would on a board. Preconditions: m.mu held, all vCPUs parked.
func (m *Machine) powerCycle() error {
	if err := m.restoreKVM(m.powerOn); err != nil {
		return err
	}
	m.board.reset()
	if err := m.mem.Reset(); err != nil {
		return err
	}
	// On software KVM our own stores do not reach its shadow of the page tables
	// that the guest had (design section 3).
	return m.vm.RemapMemory()
}
