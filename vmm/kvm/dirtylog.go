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
	// bitmaps holds one bitmap a slot, whole words, as the kernel fills them.
	bitmaps [][]uint64
	pages   []uint64 // per slot
}

func newDirtyLog(v *VM, g *memory.Guest) *dirtyLog {
	l := &dirtyLog{vm: v}
	for _, r := range g.Regions() {
		pages := r.SizeBytes / memory.PageSize
		l.pages = append(l.pages, pages)
		l.bitmaps = append(l.bitmaps, make([]uint64, (pages+63)/64))
	}
	return l
}

func (l *dirtyLog) Start() error { return l.vm.setLogging(true) }

func (l *dirtyLog) Stop() error { return l.vm.setLogging(false) }

func (l *dirtyLog) Collect(into *memory.PageSet) error {
	l.vm.slotsMu.Lock()
	defer l.vm.slotsMu.Unlock()
	for slot, bitmap := range l.bitmaps {
		if err := l.vm.getDirtyLog(uint32(slot), bitmap); err != nil {
			return fmt.Errorf("slot %d: %w", slot, err)
		}
		if !anySet(bitmap) {
			continue
		}
		into.AddBits(slot, bitmap)
		if err := l.vm.clearDirtyLog(uint32(slot), l.pages[slot], bitmap); err != nil {
			return fmt.Errorf("slot %d: %w", slot, err)
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
