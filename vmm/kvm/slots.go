package kvm

import (
	"errors"
	"fmt"
	"slices"

	gokvm "github.com/bobuhiro11/gokvm/kvm"

	"github.com/fineline-vmm/fineline/memory"
)

// Flags of a slot (KVM_MEM_*).
const (
	logDirtyPages = 1 << 0
	readOnlySlot  = 1 << 1 // loads are native, stores end KVM_RUN as MMIO exits
)

// slot is one memory slot as given to KVM; size 0 is a number that is free.
type slot = gokvm.UserspaceMemoryRegion

// MapMemory gives all RAM of g to the guest, one slot a region. g must stay open until after
// Close.
func (v *VM) MapMemory(g *memory.Guest) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.mappings) != 0 {
		return errors.New("KVM_SET_USER_MEMORY_REGION: this VM has its memory already")
	}
	v.mappings = g.GuestMappings()
	return v.addSlots(v.picture(nil, nil))
}

// SetAccess says how the guest reaches its RAM: in pages of readOnly its loads are native and
// its stores end KVM_RUN as MMIO exits; in pages of absent all accesses do; the rest
// is native. Either set may be nil. No vCPU may be in Run, and an exit that has been taken must have
// been answered. Dirty pages that were not collected yet are kept. After an error the guest
// reaches its RAM as before.
func (v *VM) SetAccess(readOnly, absent *memory.PageSet) error {
	v.slotsMu.Lock()
	defer v.slotsMu.Unlock()
	if err := v.keepDirty(); err != nil { // the log of a slot goes with it
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	before, after := v.used(), v.picture(readOnly, absent)
	most := v.sys.capability(gokvm.CapNRMemSlots)
	if len(after) > most {
		return fmt.Errorf("KVM has %d memory slots, and this needs %d: track fewer or larger ranges", most, len(after))
	}
	gone, added := without(before, after), without(after, before)
	if err := v.replaceSlots(gone, added); err != nil {
		return errors.Join(err, v.replaceSlots(without(v.used(), before), without(before, v.used())))
	}
	return nil
}

// without returns the slots of list that give no access as one of others does.
func without(list, others []slot) []slot {
	type access struct {
		base, sizeBytes uint64
		flags           uint32
	}
	of := func(s slot) access { return access{s.GuestPhysAddr, s.MemorySize, s.Flags} }
	same := map[access]bool{}
	for _, s := range others {
		same[of(s)] = true
	}
	return slices.DeleteFunc(slices.Clone(list), func(s slot) bool { return same[of(s)] })
}

// keepDirty takes what is dirty now before slots change. Preconditions: slotsMu held.
func (v *VM) keepDirty() error {
	switch {
	case v.ring != nil:
		return v.ring.drain()
	case v.log != nil && v.log.started:
		return v.log.collect(v.log.carried)
	}
	return nil
}

// used returns the slots that exist. Preconditions: v.mu held.
func (v *VM) used() []slot {
	return slices.DeleteFunc(slices.Clone(v.slots), func(s slot) bool { return s.MemorySize == 0 })
}

// picture returns the slots, without numbers, that give the guest this access.
// Preconditions: v.mu held.
func (v *VM) picture(readOnly, absent *memory.PageSet) []slot {
	var flags uint32
	if v.logging {
		flags = logDirtyPages
	}
	has := func(set *memory.PageSet, gpa memory.GPA) bool { return set != nil && set.Has(gpa) }
	var all []slot
	for _, m := range v.mappings {
		if readOnly == nil && absent == nil {
			all = append(all, slot{Flags: flags, GuestPhysAddr: uint64(m.Base), MemorySize: m.SizeBytes, UserspaceAddr: uint64(m.HostAddr)})
			continue
		}
		open := false // the last slot goes on with the next page
		for off := uint64(0); off < m.SizeBytes; off += memory.PageSize {
			gpa, want := m.Base+memory.GPA(off), flags
			if has(absent, gpa) {
				open = false
				continue
			}
			if has(readOnly, gpa) {
				want |= readOnlySlot
			}
			if open && all[len(all)-1].Flags == want {
				all[len(all)-1].MemorySize += memory.PageSize
				continue
			}
			all = append(all, slot{Flags: want, GuestPhysAddr: uint64(gpa), MemorySize: memory.PageSize, UserspaceAddr: uint64(m.HostAddr) + off})
			open = true
		}
	}
	return all
}

// replaceSlots removes slots and adds others. Preconditions: v.mu held.
func (v *VM) replaceSlots(gone, added []slot) error {
	for _, s := range gone {
		if err := v.removeSlot(s.Slot); err != nil {
			return err
		}
	}
	return v.addSlots(added)
}

// removeSlot leaves its number free. Preconditions: v.mu held.
func (v *VM) removeSlot(number uint32) error {
	empty := v.slots[number]
	empty.MemorySize = 0 // size 0 deletes the slot
	if err := v.setSlot(&empty); err != nil {
		return err
	}
	v.slots[number] = empty
	return nil
}

// addSlots adds slots under the lowest free numbers. Preconditions: v.mu held.
func (v *VM) addSlots(list []slot) error {
	number := 0
	for _, s := range list {
		for number < len(v.slots) && v.slots[number].MemorySize != 0 {
			number++
		}
		s.Slot = uint32(number)
		if err := v.setSlot(&s); err != nil {
			return err
		}
		if number == len(v.slots) {
			v.slots = append(v.slots, slot{})
		}
		v.slots[number] = s
	}
	return nil
}

// setSlot tells KVM about a slot.
func (v *VM) setSlot(s *slot) error {
	if err := gokvm.SetUserMemoryRegion(uintptr(v.fd), s); err != nil {
		return fmt.Errorf("KVM_SET_USER_MEMORY_REGION: slot %d, %d bytes at %#x: %w", s.Slot, s.MemorySize, s.GuestPhysAddr, err)
	}
	return nil
}

// RemapMemory takes every slot away and puts it back, so that KVM forgets all
// translations. Needed after the VMM itself has rewritten guest page tables that
// the guest has used (a reset, a restore into a used VM): software KVM shadows
// them and sees only stores made by guest code. Costs some 130 µs a slot. The
// vCPUs must be paused. Dirty pages that were not collected yet are kept.
func (v *VM) RemapMemory() error {
	v.slotsMu.Lock()
	defer v.slotsMu.Unlock()
	if err := v.keepDirty(); err != nil { // a slot may get another number
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, s := range v.used() {
		if err := v.replaceSlots([]slot{s}, []slot{s}); err != nil {
			return err
		}
	}
	return nil
}

// setLogging switches dirty tracking of all slots on or off.
func (v *VM) setLogging(on bool) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	for i := range v.slots {
		s := v.slots[i]
		if s.MemorySize == 0 {
			continue
		}
		s.Flags &^= logDirtyPages
		if on {
			s.Flags |= logDirtyPages
		}
		if err := v.setSlot(&s); err != nil {
			return err
		}
		v.slots[i] = s
	}
	v.logging = on
	return nil
}

// slotsNow returns all slots by number; the size of a free one is 0.
func (v *VM) slotsNow() []slot {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.slots)
}
