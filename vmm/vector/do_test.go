package vector

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/fineline-vmm/fineline/memory"
)

const fakeRIP = 0x7000

// fakeCPU is a processor whose address space is one to one, but for holes.
type fakeCPU struct {
	regs     registers
	img      image
	ram      map[memory.GPA]byte
	holes    map[uint64]error // by the page's address
	accesses []access
}

// access is one call of processor.access.
type access struct {
	gpa   memory.GPA
	bytes int
	write bool
}

// offsets are those of a CPU with AVX-512.
func offsets(component int) int {
	return map[int]int{componentAVX: 576, componentOpmask: 832, componentZMMHigh: 896, componentHiZMM: 1408}[component]
}

func newFakeCPU() *fakeCPU {
	c := &fakeCPU{ram: map[memory.GPA]byte{}, holes: map[uint64]error{}}
	c.img = image{bytes: make([]byte, 4096), offset: offsets}
	for i := range c.regs.GPR {
		c.regs.GPR[i] = 0x1_0000 * uint64(i+1)
	}
	c.regs.RIP = fakeRIP
	return c
}

func (c *fakeCPU) registers() *registers   { r := c.regs; return &r }
func (c *fakeCPU) setRIP(rip uint64) error { c.regs.RIP = rip; return nil }
func (c *fakeCPU) xsave() (*image, error) {
	m := c.img
	m.bytes = slices.Clone(m.bytes)
	return &m, nil
}
func (c *fakeCPU) setXSave(m *image) error { c.img = *m; return nil }
func (c *fakeCPU) translate(va uint64, _ bool) (memory.GPA, error) {
	return memory.GPA(va), c.holes[va&^pageMask]
}

func (c *fakeCPU) access(gpa memory.GPA, data []byte, write bool) error {
	c.accesses = append(c.accesses, access{gpa, len(data), write})
	for i := range data {
		if write {
			c.ram[gpa+memory.GPA(i)] = data[i]
		} else {
			data[i] = c.ram[gpa+memory.GPA(i)]
		}
	}
	return nil
}

// fill puts a pattern into register n.
func (c *fakeCPU) fill(t *testing.T, n int) (r register) {
	t.Helper()
	for i := range r {
		r[i] = byte(16*n + i + 1)
	}
	if err := c.img.setVector(n, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func (c *fakeCPU) bytes(gpa memory.GPA, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = c.ram[gpa+memory.GPA(i)]
	}
	return p
}

func (c *fakeCPU) wantAccesses(t *testing.T, want ...access) {
	t.Helper()
	if !slices.Equal(c.accesses, want) {
		t.Errorf("accesses %+v, want %+v", c.accesses, want)
	}
}

var (
	storeZMM       = []byte{0x62, 0xf1, 0xfe, 0x48, 0x7f, 0x08} // vmovdqu64 %zmm1,(%rax)
	storeZMMMasked = []byte{0x62, 0xf1, 0xfe, 0x49, 0x7f, 0x08} // with {%k1}
	loadZMMMasked  = []byte{0x62, 0xf1, 0xfe, 0x49, 0x6f, 0x08} // vmovdqu64 (%rax),%zmm1{%k1}
	loadXMM        = []byte{0xc5, 0xfa, 0x6f, 0x08}             // vmovdqu (%rax),%xmm1
)

func TestStoreSplitsAtPages(t *testing.T) {
	c := newFakeCPU()
	want := c.fill(t, 1)
	c.regs.GPR[0] = 0x3fd0
	if err := run(storeZMM, c, nil); err != nil {
		t.Fatal(err)
	}
	c.wantAccesses(t, access{0x3fd0, 0x30, true}, access{0x4000, 0x10, true})
	if got := c.bytes(0x3fd0, 64); !bytes.Equal(got, want[:]) {
		t.Errorf("memory % x, want % x", got, want)
	}
	if c.regs.RIP != fakeRIP+6 {
		t.Errorf("RIP %#x", c.regs.RIP)
	}
}

func (c *fakeCPU) setOpmask(n int, value uint64) {
	var raw [8]byte
	binary.LittleEndian.PutUint64(raw[:], value)
	_ = c.img.store(componentOpmask, 8*n, raw[:])
}

// Masked elements are neither accessed nor translated: they don't fault.
func TestMask(t *testing.T) {
	c := newFakeCPU()
	old := c.fill(t, 1)
	c.regs.GPR[0] = 0x3fe0
	c.holes[0x4000] = ErrNotMapped
	c.setOpmask(1, 0b1101)
	if err := run(storeZMMMasked, c, nil); err != nil {
		t.Fatal(err)
	}
	c.wantAccesses(t, access{0x3fe0, 8, true}, access{0x3ff0, 16, true})
	c.accesses = nil
	for gpa := range c.ram {
		c.ram[gpa] = 0xaa
	}
	if err := run(loadZMMMasked, c, nil); err != nil {
		t.Fatal(err)
	}
	c.wantAccesses(t, access{0x3fe0, 8, false}, access{0x3ff0, 16, false})
	want := old
	for _, i := range []int{0, 2, 3} {
		copy(want[8*i:], bytes.Repeat([]byte{0xaa}, 8))
	}
	if got := c.img.vector(1); got != want {
		t.Errorf("zmm1 % x, want % x", got, want)
	}
}

// An access that faults in its second page does nothing, and names what the guest needs.
func TestNothingDoneWithoutTranslation(t *testing.T) {
	for _, tt := range []struct {
		why  error
		want []memory.GPA
	}{{ErrNotMapped, []memory.GPA{0x3000}}, {ErrNotPermitted, []memory.GPA{0x3000, 0x4000}}} {
		c := newFakeCPU()
		c.fill(t, 1)
		c.regs.GPR[0] = 0x3fd0
		c.holes[0x4000] = tt.why
		err := run(storeZMM, c, nil)
		var u *UnknownError
		if !errors.As(err, &u) || !errors.Is(err, tt.why) || !slices.Equal(u.Pages, tt.want) {
			t.Errorf("%v, want %v and pages %#x", err, tt.why, tt.want)
		}
		if len(c.accesses) != 0 || c.regs.RIP != fakeRIP {
			t.Errorf("%v: accesses %v, RIP %#x", tt.why, c.accesses, c.regs.RIP)
		}
	}
}

func TestUnknownNamesItsPages(t *testing.T) {
	for _, tt := range []struct {
		what string
		code []byte
		rax  uint64
		want []memory.GPA
	}{
		{"arithmetic", []byte{0xc5, 0xfd, 0xfc, 0x00}, 0x3000, []memory.GPA{0x3000}},
		{"arithmetic at the end of a page", []byte{0xc5, 0xfd, 0xfc, 0x00}, 0x3ff8, []memory.GPA{0x3000, 0x4000}},
		{"a compressed displacement", []byte{0x62, 0xf1, 0x7d, 0x48, 0xfc, 0x40, 0x20}, 0x3000, []memory.GPA{0x3000}},
		{"one that may reach far", []byte{0x62, 0xf1, 0x7d, 0x48, 0xfc, 0x40, 0x7f}, 0x3000, []memory.GPA{0x3000, 0x4000}},
		{"fxsave", []byte{0x0f, 0xae, 0x00}, 0x3e40, []memory.GPA{0x3000, 0x4000}},
		{"no operand", []byte{0xc5, 0xf8, 0x77}, 0x3000, nil},
		{"no code", nil, 0x3000, []memory.GPA{fakeRIP}},
		{"vpgatherqq (%rax,%zmm1,8),%zmm0{%k1}", []byte{0x62, 0xf2, 0xfd, 0x49, 0x91, 0x04, 0xc8}, 0x3000, []memory.GPA{0x3000, 0x5000}},
		{"a gather longer than vectors are", []byte{0x62, 0xf2, 0x7d, 0x69, 0x90, 0x04, 0x20}, 0x3000, []memory.GPA{0x3000}},
	} {
		c := newFakeCPU()
		c.regs.GPR[0] = tt.rax
		index := register{1: 4} // element 0: 0x400
		if err := c.img.setVector(1, &index); err != nil {
			t.Fatal(err)
		}
		err := run(tt.code, c, nil)
		var u *UnknownError
		if !errors.As(err, &u) || !errors.Is(err, ErrUnknown) {
			t.Errorf("%s: %v", tt.what, err)
			continue
		}
		if slices.Sort(u.Pages); !slices.Equal(u.Pages, tt.want) {
			t.Errorf("%s: pages %#x, want %#x", tt.what, u.Pages, tt.want)
		}
	}
}

// A reason to refuse leaves a known instruction undone and names exactly its pages.
func TestRefused(t *testing.T) {
	c := newFakeCPU()
	c.regs.GPR[0] = 0x3fc0
	err := run(storeZMM, c, errMode)
	var u *UnknownError
	if !errors.As(err, &u) || !errors.Is(err, errMode) || !slices.Equal(u.Pages, []memory.GPA{0x3000}) || len(c.accesses) != 0 {
		t.Errorf("%v, accesses %v", err, c.accesses)
	}
}

// A component in its initial state reads as zeros whatever its bytes are, and is taken in use
// with zeros around what is stored.
func TestImageInitialState(t *testing.T) {
	c := newFakeCPU()
	for i := range c.img.bytes {
		c.img.bytes[i] = 0xee
	}
	clear(c.img.bytes[offsetXSTATEBV:headerEnd])
	if got := c.img.vector(3); got != (register{}) {
		t.Errorf("xmm3 % x", got)
	}
	for i := range memory.GPA(16) {
		c.ram[0x3000+i] = 7
	}
	c.regs.GPR[0] = 0x3000
	if err := run(loadXMM, c, nil); err != nil {
		t.Fatal(err)
	}
	if got, want := c.img.vector(1), (register{7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7}); got != want {
		t.Errorf("xmm1 % x", got)
	}
	if got := c.img.vector(3); got != (register{}) {
		t.Errorf("xmm3 became % x", got)
	}
	if got := c.img.inUse(); got != 1<<componentSSE {
		t.Errorf("components in use %#x", got)
	}
	if got := binary.LittleEndian.Uint32(c.img.bytes[offsetMXCSR:]); got != mxcsrReset {
		t.Errorf("MXCSR %#x", got)
	}
}

// An image without AVX-512 keeps out what it has no room for.
func TestImageWithoutComponent(t *testing.T) {
	c := newFakeCPU()
	c.img.offset = func(n int) int {
		if n == componentAVX {
			return 576
		}
		return 0
	}
	if err := c.img.setVector(1, &register{1}); err != nil {
		t.Error(err)
	}
	if err := c.img.setVector(1, &register{40: 1}); err == nil {
		t.Error("the upper half of a zmm register was stored")
	}
	if err := c.img.setVector(20, &register{1}); err == nil {
		t.Error("xmm20 was stored")
	}
}
