package kvm

import (
	"fmt"

	"github.com/fineline-vmm/fineline/memory"
)

// dirtyLog is the dirty log as a memory.DirtySource. With manual protection
// KVM_GET_DIRTY_LOG copies a slot's bitmap and leaves the pages writable, and
// KVM_CLEAR_DIRTY_LOG clears the bits it is given and protects those pages
// again. A page written between the two calls is reported once, now, which is
// enough: its bytes are read after Collect.
type dirtyLog struct {
	vm *VM
	// Guarded by vm.slotsMu.
	started bool
	carried *memory.PageSet // from slots that are no more
	bitmap  []uint64        // scratch, on the heap: the kernel fills it
}

func (l *dirtyLog) Start() error {
	l.vm.slotsMu.Lock()
	defer l.vm.slotsMu.Unlock()
	if err := l.vm.setLogging(true); err != nil {
		return err
	}
	l.carried.Clear()
	l.started = true
	return nil
}

func (l *dirtyLog) Stop() error {
	l.vm.slotsMu.Lock()
	defer l.vm.slotsMu.Unlock()
	l.started = false
	return l.vm.setLogging(false)
}

func (l *dirtyLog) Collect(into *memory.PageSet) error {
	l.vm.slotsMu.Lock()
	defer l.vm.slotsMu.Unlock()
	into.Union(l.carried)
	l.carried.Clear()
	return l.collect(into)
}

// Peek implements memory.Peeker: the bitmaps are copied, which takes some 10 µs for 1 GiB, and
// nothing is protected again, which takes 25 ns a page on software KVM.
func (l *dirtyLog) Peek(into *memory.PageSet) error {
	l.vm.slotsMu.Lock()
	defer l.vm.slotsMu.Unlock()
	into.Union(l.carried)
	return l.each(func(s slot, pages uint64, bitmap []uint64) error {
		into.AddBits(memory.GPA(s.GuestPhysAddr), pages, bitmap)
		return nil
	})
}

// collect moves the marks of all slots to into and re-arms their pages. Preconditions:
// vm.slotsMu held.
func (l *dirtyLog) collect(into *memory.PageSet) error {
	return l.each(func(s slot, pages uint64, bitmap []uint64) error {
		into.AddBits(memory.GPA(s.GuestPhysAddr), pages, bitmap)
		return l.vm.clearDirtyLog(s.Slot, pages, bitmap)
	})
}

// each calls fn with the bitmap of every slot that has a dirty page. Preconditions:
// vm.slotsMu held.
func (l *dirtyLog) each(fn func(s slot, pages uint64, bitmap []uint64) error) error {
	for _, s := range l.vm.slotsNow() {
		if s.MemorySize == 0 {
			continue
		}
		pages := s.MemorySize / memory.PageSize
		words := int(pages+63) / 64
		if cap(l.bitmap) < words {
			l.bitmap = make([]uint64, words)
		}
		bitmap := l.bitmap[:words] // whole words, as the kernel fills them
		err := l.vm.getDirtyLog(s.Slot, bitmap)
		if err == nil && anySet(bitmap) {
			err = fn(s, pages, bitmap)
		}
		if err != nil {
			return fmt.Errorf("slot %d: %w", s.Slot, err)
		}
	}
	return nil
}

func anySet(bitmap []uint64) bool {
	for _, w := range bitmap {
		if w != 0 {
			return true
		}
	}
	return false
}
