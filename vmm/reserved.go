package vmm

import (
	"encoding/binary"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/vmm/kvm"
)

// maxTablePages bounds the search for page tables, of all processors together: 16 MiB of tables map 8 GiB in small pages. Those
// of a guest with more are found by the exits that cannot be served, if at all.
const maxTablePages = 4096

// reservedPages returns what processors with these registers use by themselves: the page tables, and where they map
// them the descriptor tables, the task segments and the stacks that those name. Accesses of
// a processor to those do not exit as the program's do, and end the guest where there is no slot. Tables that are missing it
// waits for, or leaves out.
func reservedPages(mem *memory.Guest, registers []kvm.Sregs, wait bool) *memory.PageSet {
	const paging = 1 << 31
	w := &tableWalk{mem: mem, wait: wait, tables: mem.NewPageSet()}
	all := mem.NewPageSet()
	for i := range registers {
		s := &registers[i]
		w.levels, w.entryBytes, w.root = 0, 0, 0
		if s.CR0&paging != 0 {
			w.levels, w.entryBytes, w.root = tableForm(s)
			w.findRoot()
		}
		w.addRange(s.GDT.Base, uint64(s.GDT.Limit)+1, all)
		w.addRange(s.IDT.Base, uint64(s.IDT.Limit)+1, all)
		w.addRange(s.TR.Base, uint64(s.TR.Limit)+1, all)
		if w.levels >= 4 && s.TR.Limit >= taskBytes-1 {
			w.addStacks(s.TR.Base, all)
		}
	}
	all.Union(w.tables)
	return all
}

// tableForm returns the form of the page tables and their root (Intel SDM vol. 3, 4.1.1).
func tableForm(s *kvm.Sregs) (levels int, entryBytes uint64, root memory.GPA) {
	const lma, pae, la57 = 1 << 10, 1 << 5, 1 << 12
	root = memory.GPA(s.CR3 & entryAddress)
	switch {
	case s.EFER&lma != 0 && s.CR4&la57 != 0:
		return 5, 8, root
	case s.EFER&lma != 0:
		return 4, 8, root
	case s.CR4&pae != 0:
		return 3, 8, memory.GPA(s.CR3 & (1<<32 - 1<<5))
	}
	return 2, 4, root
}

// addRange adds the pages behind linear addresses; without paging they are physical.
func (w *tableWalk) addRange(linear, sizeBytes uint64, into *memory.PageSet) {
	first := linear &^ (memory.PageSize - 1)
	pages := (linear%memory.PageSize + min(sizeBytes, 1<<20) + memory.PageSize - 1) / memory.PageSize
	for i := range pages { // a count: the guest may have put the range at the end of the address space
		if gpa, ok := w.translate(first + i*memory.PageSize); ok {
			into.Add(gpa)
		}
	}
}

// taskBytes is the size of a 64-bit task segment.
const taskBytes = 104

// addStacks adds the two pages below each stack pointer of a 64-bit task segment (Intel SDM vol. 3, 8.7): RSP0 to 2 from
// 4, IST1 to 7 from 36.
func (w *tableWalk) addStacks(base uint64, into *memory.PageSet) {
	for _, off := range []uint64{4, 12, 20, 36, 44, 52, 60, 68, 76, 84} {
		var raw [8]byte
		gpa, ok := w.translate(base + off)
		if !ok || w.leavesOut(gpa, 8) || w.mem.ReadAt(gpa, raw[:]) != nil {
			continue
		}
		if top := binary.LittleEndian.Uint64(raw[:]); top >= 2*memory.PageSize {
			w.addRange(top-2*memory.PageSize, 2*memory.PageSize, into)
		}
	}
}

// tableWalk reads a guest's page tables (Intel SDM vol. 3, 4.3 to 4.5).
type tableWalk struct {
	mem        *memory.Guest
	wait       bool // for tables that are missing
	root       memory.GPA
	levels     int // 0: no paging
	entryBytes uint64
	tables     *memory.PageSet
	count      int
}

const (
	entryPresent = 1 << 0
	entryLarge   = 1 << 7
	entryAddress = 1<<52 - 1<<12
)

// entry loads one; what is not RAM reads as not present. So does what is missing and not waited for: what it maps is given back when
// KVM fails there.
func (w *tableWalk) entry(at memory.GPA) uint64 {
	if w.leavesOut(at, w.entryBytes) {
		return 0
	}
	if w.entryBytes == 4 {
		v, _ := w.mem.LoadUint32(at)
		return uint64(v)
	}
	v, _ := w.mem.LoadUint64(at)
	return v
}

func (w *tableWalk) leavesOut(gpa memory.GPA, n uint64) bool {
	return !w.wait && w.mem.Missing(gpa, n) != nil
}

// findRoot adds the root and all that it leads to. That of PAE is four entries in a page of other things.
func (w *tableWalk) findRoot() {
	if w.levels != 3 {
		w.find(w.root, w.levels)
		return
	}
	w.tables.Add(w.root)
	for i := range memory.GPA(4) {
		if e := w.entry(w.root + 8*i); e&entryPresent != 0 {
			w.find(memory.GPA(e&entryAddress), 2)
		}
	}
}

// find adds the table at gpa and all that it leads to.
func (w *tableWalk) find(table memory.GPA, level int) {
	if w.count == maxTablePages || w.tables.Has(table) || !w.tables.Add(table) {
		return
	}
	w.count++
	if level == 1 {
		return
	}
	for off := uint64(0); off < memory.PageSize; off += w.entryBytes {
		e := w.entry(table + memory.GPA(off))
		if e&entryPresent != 0 && (e&entryLarge == 0 || level > 3) {
			w.find(memory.GPA(e&entryAddress), level-1)
		}
	}
}

// translate returns where a linear address is mapped now.
func (w *tableWalk) translate(linear uint64) (memory.GPA, bool) {
	indexBits := uint(9)
	if w.entryBytes == 4 {
		indexBits = 10
	}
	if w.levels == 0 {
		return memory.GPA(linear), true
	}
	table := w.root
	for level := w.levels; level > 0; level-- {
		shift := 12 + indexBits*uint(level-1)
		index := linear >> shift & (1<<indexBits - 1)
		e := w.entry(table + memory.GPA(index*w.entryBytes))
		if e&entryPresent == 0 {
			return 0, false
		}
		inPage := uint64(1)<<shift - 1
		if level == 1 || e&entryLarge != 0 && level <= 3 {
			return memory.GPA(e&entryAddress&^inPage | linear&inPage), true
		}
		table = memory.GPA(e & entryAddress)
	}
	return 0, false
}
