package kvm

import (
	"errors"
	"fmt"
	"sync"

	"github.com/fineline-vmm/fineline/memory"
)

// dirtyRing is the dirty rings of all vCPUs as a memory.DirtySource. KVM pushes
// the page of every first write; we take entries out, mark them, and
// KVM_RESET_DIRTY_RINGS protects their pages again.
//
// A ring that is nearly full ends KVM_RUN; the vCPU then drains the rings itself
// and the pages wait in pending for the next Collect.
type dirtyRing struct {
	vm        *VM
	sizeBytes int

	// mu covers the rings of all vCPUs and all below. It comes after VM.slotsMu, held while entries are read: the
	// numbers of slots must mean what they meant to KVM; and before VM.mu.
	mu      sync.Mutex
	guest   *memory.Guest
	slots   []slot          // during a harvest; the index is the number
	pending *memory.PageSet // nil while stopped
	owed    bool            // entries were taken whose pages are not re-armed yet
}

var errRingStopped = errors.New("the dirty rings are not started")

func (r *dirtyRing) attach(g *memory.Guest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.guest = g
}

func (r *dirtyRing) Start() error {
	r.vm.slotsMu.Lock()
	defer r.vm.slotsMu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending = r.guest.NewPageSet()
	return r.vm.setLogging(true)
}

func (r *dirtyRing) Stop() error {
	r.vm.slotsMu.Lock()
	defer r.vm.slotsMu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.vm.setLogging(false); err != nil {
		return err
	}
	// What is left in the rings would be reported after the next Start.
	r.pending = nil
	return r.harvest()
}

func (r *dirtyRing) Collect(into *memory.PageSet) error {
	r.vm.slotsMu.Lock()
	defer r.vm.slotsMu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pending == nil {
		return errRingStopped
	}
	err := r.harvest()
	into.Union(r.pending)
	r.pending.Clear()
	return err
}

// Peek implements memory.Peeker: the entries are taken, so that their pages wait for the next Collect,
// which re-arms them.
func (r *dirtyRing) Peek(into *memory.PageSet) error {
	r.vm.slotsMu.Lock()
	defer r.vm.slotsMu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pending == nil {
		return errRingStopped
	}
	err := r.take()
	into.Union(r.pending)
	return err
}

// drain makes room in the rings. Preconditions: VM.slotsMu held.
func (r *dirtyRing) drain() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.harvest()
}

// harvest moves all entries to pending (or drops them while stopped) and re-arms
// their pages. Preconditions: r.mu held.
func (r *dirtyRing) harvest() error {
	if err := r.take(); err != nil || !r.owed {
		return err
	}
	_, err := ioctl(r.vm.fd, reqResetDirtyRings, 0)
	r.owed = err != nil
	return err
}

// take is harvest without the re-arming. Preconditions: r.mu held.
func (r *dirtyRing) take() error {
	r.slots = r.vm.slotsNow()
	for _, c := range r.vm.openVCPUs() {
		n, err := c.takeEntries(r.add)
		r.owed = r.owed || n > 0
		if err != nil {
			return err
		}
	}
	return nil
}

// add notes the page of one entry.
func (r *dirtyRing) add(number uint32, offset uint64) error {
	if r.pending == nil {
		return nil
	}
	if uint64(number) >= uint64(len(r.slots)) || offset >= r.slots[number].MemorySize/memory.PageSize {
		return fmt.Errorf("dirty ring: page %d of slot %d does not exist", offset, number)
	}
	r.pending.Add(memory.GPA(r.slots[number].GuestPhysAddr) + memory.GPA(offset)*memory.PageSize)
	return nil
}
