package pci

import (
	"sync/atomic"
	"unsafe"
)

// Load32 loads the register at offset, a multiple of 4 inside the BAR.
func (f *Function) Load32(offset int) uint32 {
	return atomic.LoadUint32((*uint32)(unsafe.Pointer(&f.bar[offset : offset+4][0])))
}

// Store32 stores to the register at offset, a multiple of 4 inside the BAR.
func (f *Function) Store32(offset int, v uint32) {
	store32((*uint32)(unsafe.Pointer(&f.bar[offset : offset+4][0])), v)
}

// Store64 stores to the 8-byte register at offset, a multiple of 8 inside the BAR.
func (f *Function) Store64(offset int, v uint64) {
	store64((*uint64)(unsafe.Pointer(&f.bar[offset : offset+8][0])), v)
}

// The compiler neither splits nor moves an aligned store across a call; see doc.go for why it is plain.

//go:noinline
func store32(p *uint32, v uint32) { *p = v }

//go:noinline
func store64(p *uint64, v uint64) { *p = v }
