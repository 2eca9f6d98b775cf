package vmm

import (
	"errors"
	"fmt"

	"github.com/fineline-vmm/fineline/vmm/kvm"
)

// state is all of a machine but its memory.
type state struct {
	resume  bool // the guest is to run after a restore
	vcpus   []*kvm.VCPUState
	kernel  *kvm.VMState // PICs, IOAPIC, PIT, clock
	devices deviceStates
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
	s.resume = resume
	return s.seal()
}

// save is Save without check and seal. Preconditions: nobody else uses the machine, all
// vCPUs parked.
func (m *Machine) save() (*state, error) {
	s := &state{vcpus: make([]*kvm.VCPUState, len(m.cpus))}
	saved := m.onAll(func(i int, v *kvm.VCPU) (err error) {
		s.vcpus[i], err = v.State()
		return err
	})
	var err error
	s.devices, err = m.board.state()
	if err = errors.Join(err, saved()); err != nil {
		return nil, fmt.Errorf("save: %w", err)
	}
	if s.kernel, err = m.vm.State(); err != nil {
		return nil, fmt.Errorf("save the in-kernel devices: %w", err)
	}
	return s, nil
}

// Restore puts a saved state into a machine that was just built, or one that is
// paused, and returns the resume that was given to Save. The machine is paused
// after it. After an error the machine can only be closed. Where the guest has run, Rewind is the
// one to call.
func (m *Machine) Restore(sealed []byte) (resume bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.status != Created && m.status != Paused {
		return false, errNotPaused
	}
	s, err := unsealState(sealed)
	if err != nil {
		return false, err
	}
	if err := m.restoreKVM(s); err != nil {
		return false, err
	}
	if err := m.board.restore(s.devices); err != nil {
		return false, err
	}
	m.status = Paused
	return s.resume, nil
}

// restoreKVM restores what KVM holds: vCPUs and in-kernel devices.
// Preconditions: m.mu held, all vCPUs parked.
func (m *Machine) restoreKVM(s *state) error {
	if len(s.vcpus) != len(m.cpus) {
		return fmt.Errorf("%w: it has %d vCPUs, the machine %d", ErrCorrupt, len(s.vcpus), len(m.cpus))
	}
	// In-kernel irqchip first: setting an IOAPIC evaluates its lines, and the
	// LAPICs restored after it then hold exactly what was saved.
	if err := m.vm.Restore(s.kernel); err != nil {
		return fmt.Errorf("restore the in-kernel devices: %w", err)
	}
	return m.onAll(func(i int, v *kvm.VCPU) error { return v.Restore(s.vcpus[i]) })()
}

// onAll begins f on the threads of all vCPUs at once, and returns what waits for the last.
// Preconditions: all vCPUs parked.
func (m *Machine) onAll(f func(i int, v *kvm.VCPU) error) (wait func() error) {
	waits := make([]func() error, len(m.cpus))
	for i, c := range m.cpus {
		waits[i] = c.begin(func(v *kvm.VCPU) error { return f(i, v) })
	}
	return func() error {
		var errs []error
		for _, wait := range waits {
			errs = append(errs, wait())
		}
		return errors.Join(errs...)
	}
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
