package vector

import (
	"encoding/binary"
	"fmt"
)

// Components of the XSAVE image by their number, a bit of XCR0 (Intel SDM vol. 1, 13.1).
const (
	componentSSE     = 1 // XMM0-15
	componentAVX     = 2 // bits 128-255 of YMM0-15
	componentOpmask  = 5 // k0-7
	componentZMMHigh = 6 // bits 256-511 of ZMM0-15
	componentHiZMM   = 7 // ZMM16-31

	components = 8
)

const (
	offsetMXCSR    = 24
	offsetXMM      = 160
	offsetXSTATEBV = 512
	headerEnd      = 576
	mxcsrReset     = 0x1f80
)

// componentBytes are the sizes of the components that are used here, architectural ones.
var componentBytes = [components]int{
	componentSSE: 16 * 16, componentAVX: 16 * 16, componentOpmask: 8 * 8, componentZMMHigh: 16 * 32, componentHiZMM: 16 * 64,
}

// image is an XSAVE image in the standard format. A component whose bit in XSTATE_BV is
// clear is in its initial state, zeros, whatever its bytes are.
type image struct {
	bytes []byte
	// offset returns where a component lies (CPUID leaf 0xD, subleaf n, EBX), 0 if this CPU does
	// not have it. It is asked for components 2 and up.
	offset func(component int) int
}

// register is the value of one vector register, ZMM wide.
type register [64]byte

// place returns the bytes of a component, or nil if the image has none.
func (m *image) place(component int) []byte {
	at := offsetXMM
	if component != componentSSE {
		if at = m.offset(component); at < headerEnd {
			return nil
		}
	}
	if at+componentBytes[component] > len(m.bytes) {
		return nil
	}
	return m.bytes[at:][:componentBytes[component]]
}

func (m *image) inUse() uint64 { return binary.LittleEndian.Uint64(m.bytes[offsetXSTATEBV:]) }

// load copies bytes of a component to p, which is zeros.
func (m *image) load(component, at int, p []byte) {
	if m.inUse()>>component&1 != 0 {
		if from := m.place(component); from != nil {
			copy(p, from[at:])
		}
	}
}

// store copies p to a component and takes it in use, but if p is what it is without.
func (m *image) store(component, at int, p []byte) error {
	used := m.inUse()
	to := m.place(component)
	if used>>component&1 == 0 {
		if allZero(p) {
			return nil
		}
		if to == nil {
			return fmt.Errorf("the XSAVE image of %d bytes has no component %d", len(m.bytes), component)
		}
		clear(to)
		if used&(1<<componentSSE|1<<componentAVX) == 0 { // with these two MXCSR is loaded
			binary.LittleEndian.PutUint32(m.bytes[offsetMXCSR:], mxcsrReset)
		}
		binary.LittleEndian.PutUint64(m.bytes[offsetXSTATEBV:], used|1<<component)
	}
	if to == nil {
		return fmt.Errorf("the XSAVE image of %d bytes has no component %d", len(m.bytes), component)
	}
	copy(to[at:], p)
	return nil
}

func allZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

// vector returns register n, 0 to 31.
func (m *image) vector(n int) (r register) {
	if n >= 16 {
		m.load(componentHiZMM, 64*(n-16), r[:])
		return r
	}
	m.load(componentSSE, 16*n, r[:16])
	m.load(componentAVX, 16*n, r[16:32])
	m.load(componentZMMHigh, 32*n, r[32:])
	return r
}

// setVector sets register n, 0 to 31. It fails if the value needs a component that the image
// does not have.
func (m *image) setVector(n int, r *register) error {
	if n >= 16 {
		return m.store(componentHiZMM, 64*(n-16), r[:])
	}
	if err := m.store(componentSSE, 16*n, r[:16]); err != nil {
		return err
	}
	if err := m.store(componentAVX, 16*n, r[16:32]); err != nil {
		return err
	}
	return m.store(componentZMMHigh, 32*n, r[32:])
}

// opmask returns k0 to k7.
func (m *image) opmask(n int) uint64 {
	var raw [8]byte
	m.load(componentOpmask, 8*n, raw[:])
	return binary.LittleEndian.Uint64(raw[:])
}
