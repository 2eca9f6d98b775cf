package vmm

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/fineline-vmm/fineline/memory"
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
// what Restore will return: whether the guest is to run then. While a vCPU is within an instruction that waits for missing
// memory the error wraps memory.ErrMissing: see Pause.
func (m *Machine) Save(resume bool) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.status != Paused {
		return nil, errNotPaused
	}
	if err := m.allParked(); err != nil {
		return nil, fmt.Errorf("save the machine: %w", err)
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
	err := m.onAll(func(i int, v *kvm.VCPU) (err error) {
		s.vcpus[i], err = v.State()
		return err
	})
	if err != nil {
		return nil, err
	}
	if s.devices, err = m.board.state(); err != nil {
		return nil, err
	}
	if s.kernel, err = m.vm.State(); err != nil {
		return nil, fmt.Errorf("save the in-kernel devices: %w", err)
	}
	return s, nil
}

// Restore puts a saved state into a machine that was just built, or one that is
// paused, and returns the resume that was given to Save. The machine is paused
// after it. After an error the machine can only be closed.
//
// Memory holds already what goes with the state. A guest that has run here goes back so to an earlier point:
// pause, write what differs by the accessors of Memory, Restore. Serial output since then that the console
// has not taken is dropped; what it has taken the guest says again.
func (m *Machine) Restore(sealed []byte) (resume bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.status != Created && m.status != Paused {
		return false, errNotPaused
	}
	if err := m.allParked(); err != nil {
		return false, fmt.Errorf("restore the machine: %w", err)
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
	if m.status == Paused { // a guest may have run
		m.dropEvents()
		if err := m.forgetTranslations(); err != nil {
			return false, err
		}
	}
	m.status = Paused
	return s.resume, nil
}

// RestorePages returns the pages of guest memory that Restore of the sealed state may look for in the kernel. In a
// machine whose memory comes after it (memory.Demand) they must be there before: nobody brings them yet.
func RestorePages(sealed []byte) ([]memory.GPA, error) {
	s, err := unsealState(sealed)
	if err != nil {
		return nil, err
	}
	var pages []memory.GPA
	for _, v := range s.vcpus {
		pages = append(pages, v.TouchedPages()...)
	}
	return pages, nil
}

// rehearse restores a machine that was just built to what it is. What can't work here fails while the
// guest runs at its source, and the restore that it waits for is not the first: the first one of a process
// takes three times as long.
func (m *Machine) rehearse() error {
	sealed, err := m.powerOn.seal()
	if err != nil {
		return err
	}
	s, err := unsealState(sealed)
	if err != nil {
		return err
	}
	return errors.Join(m.restoreKVM(s), m.board.restore(s.devices))
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
	return m.onAll(func(i int, v *kvm.VCPU) error { return v.Restore(s.vcpus[i]) })
}

// onAll calls f for all vCPUs, for as many at once as there are processors: each takes a dozen ioctls.
// Preconditions: all vCPUs are parked and stay so.
func (m *Machine) onAll(f func(i int, v *kvm.VCPU) error) error {
	errs := make([]error, len(m.cpus))
	var next atomic.Int32
	work := func() {
		for i := int(next.Add(1)) - 1; i < len(m.cpus); i = int(next.Add(1)) - 1 {
			errs[i] = m.cpus[i].do(func(v *kvm.VCPU) error { return f(i, v) })
		}
	}
	var others sync.WaitGroup
	for range min(len(m.cpus), runtime.GOMAXPROCS(0)) - 1 {
		others.Go(work)
	}
	work()
	others.Wait()
	return errors.Join(errs...)
}

// resetGuest starts the guest over. After an error the guest is in pieces and stays
// parked. Preconditions: m.mu held.
func (m *Machine) resetGuest() error {
	m.park() // no hold: a reset keeps what the console has not taken
	if err := m.dropMissing(); err != nil {
		return err
	}
	m.dropEvents()
	if err := m.powerCycle(); err != nil {
		return err
	}
	if err := m.loadGuest(); err != nil {
		return err
	}
	if m.status == Running {
		return m.release()
	}
	return nil
}

// dropMissing ends all waiting for missing memory, which a reset is about to clear, and parks the vCPUs that waited: their
// last instruction finds zeros.
func (m *Machine) dropMissing() error {
	if m.allParked() == nil {
		return nil
	}
	if err := m.mem.Reset(); err != nil {
		return err
	}
	return m.allParked()
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
	return m.forgetTranslations()
}

// forgetTranslations is for a guest whose memory was rewritten. On software KVM our own stores do not
// reach its shadow of the page tables that the guest had (design section 3). Preconditions: all
// vCPUs parked.
func (m *Machine) forgetTranslations() error { return m.vm.RemapMemory() }
