package memory

import (
	"sync/atomic"
	"unsafe"
)

// Words of the VMM's mapping, at an offset that word() admitted. sync/atomic
// has no 8- and 16-bit types:
//
//   - a load takes the aligned 32 bits around, one indivisible access that
//     x86 orders as an acquire, and shifts. Reading the neighbours is harmless.
//   - a store must not touch the neighbours, which belong to the guest. A
//     compare-and-swap of the 32 bits would be correct, but a guest that keeps
//     storing to the neighbour could hold it off; XCHG of the exact width
//     always ends (word_amd64.s).

func (m *ram) load8(off uint64) uint8 {
	return uint8(m.load32(off&^3) >> (off % 4 * 8))
}

func (m *ram) load16(off uint64) uint16 {
	return uint16(m.load32(off&^3) >> (off % 4 * 8))
}

func (m *ram) load32(off uint64) uint32 {
	return atomic.LoadUint32((*uint32)(unsafe.Add(m.vmm, off)))
}

func (m *ram) load64(off uint64) uint64 {
	return atomic.LoadUint64((*uint64)(unsafe.Add(m.vmm, off)))
}

func (m *ram) store8(off uint64, v uint8) {
	exchange8((*uint8)(unsafe.Add(m.vmm, off)), v)
}

func (m *ram) store16(off uint64, v uint16) {
	exchange16((*uint16)(unsafe.Add(m.vmm, off)), v)
}

func (m *ram) store32(off uint64, v uint32) {
	atomic.StoreUint32((*uint32)(unsafe.Add(m.vmm, off)), v)
}

func (m *ram) store64(off uint64, v uint64) {
	atomic.StoreUint64((*uint64)(unsafe.Add(m.vmm, off)), v)
}

// exchange8 and exchange16 store v by XCHG, which locks by itself.

//go:noescape
func exchange8(p *uint8, v uint8)

//go:noescape
func exchange16(p *uint16, v uint16)

// touch makes a page of what may be a hole.
func (m *ram) touch(off uint64) { m.load32(off) }
