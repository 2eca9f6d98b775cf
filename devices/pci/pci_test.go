package pci

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"github.com/fineline-vmm/fineline/devices"
)

const testECAM = 0xe0000000

// ram is a BAR's device: a few bytes that answer with what was written.
type ram struct{ b [16]byte }

func (r *ram) Read(off uint64, p []byte) { clear(p); copy(p, r.b[off%16:]) }

func (r *ram) Write(off uint64, p []byte) { copy(r.b[off%16:], p) }

// machine is a root with its buses, as a guest sees it.
type machine struct {
	*Root
	t         testing.TB
	mmio, pio *devices.Bus
	resets    []byte
}

// Write and Read are the reset register's.
func (m *machine) Write(_ uint64, p []byte) { m.resets = append(m.resets, p...) }

func (m *machine) Read(_ uint64, p []byte) { p[0] = 0x02 }

func newMachine(t testing.TB) *machine {
	t.Helper()
	m := &machine{t: t, mmio: devices.NewBus("mmio"), pio: devices.NewBus("pio")}
	m.Root = NewRoot(m.mmio, m.pio)
	m.must(m.mmio.Insert(testECAM, ECAMBytes, m.ECAM()))
	m.must(m.pio.Insert(AddressPort, PortsBytes, m.Ports(m)))
	return m
}

func (m *machine) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func get(b *devices.Bus, addr uint64, n int) uint64 {
	var p [8]byte
	b.Read(addr, p[:n])
	return binary.LittleEndian.Uint64(p[:])
}

func put(b *devices.Bus, addr uint64, n int, v uint64) {
	b.Write(addr, binary.LittleEndian.AppendUint64(nil, v)[:n])
}

// conf and setConf are dword accesses to configuration space of a slot by ECAM.
func (m *machine) conf(slot int, reg uint64) uint32 {
	return uint32(get(m.mmio, testECAM+uint64(slot)<<15+reg, 4))
}

func (m *machine) setConf(slot int, reg uint64, v uint32) {
	put(m.mmio, testECAM+uint64(slot)<<15+reg, 4, uint64(v))
}

// command enables or disables decoding of a slot.
func (m *machine) command(slot int, v uint32) { m.setConf(slot, regCommand, v) }

func (m *machine) want(what string, got, want uint64) {
	m.t.Helper()
	if got != want {
		m.t.Errorf("%s = %#x, want %#x", what, got, want)
	}
}

var testID = Identity{VendorID: 0x1af4, DeviceID: 0x1042, Class: 0x010203, Revision: 4, SubsystemVendorID: 0x1111, SubsystemID: 0x2222}

// newFunction puts a function with one BAR of each kind in a slot.
func (m *machine) newFunction(slot int) *Config {
	m.t.Helper()
	c := NewConfig(testID)
	m.must(c.AddBAR(0, BAR{Kind: Memory32, SizeBytes: 0x1000, Device: &ram{}}))
	m.must(c.AddBAR(1, BAR{Kind: IO, SizeBytes: 0x20, Device: &ram{}}))
	m.must(c.AddBAR(2, BAR{Kind: Memory64, Prefetchable: true, SizeBytes: 1 << 33, Device: &ram{}}))
	m.must(m.Add(slot, c))
	return c
}

// TestSameBytes reads all of a function by both mechanisms, in all widths.
func TestSameBytes(t *testing.T) {
	m := newMachine(t)
	m.newFunction(3)
	for _, slot := range []uint64{0, 3, 4} {
		for reg := uint64(0); reg < configBytes; reg++ {
			for _, n := range []int{1, 2, 4} {
				if reg%4+uint64(n) > 4 {
					continue
				}
				put(m.pio, 0xcf8, 4, 1<<31|slot<<11|reg&^3)
				a, b := get(m.pio, 0xcfc+reg%4, n), get(m.mmio, testECAM+slot<<15+reg, n)
				if a != b {
					t.Fatalf("slot %d register %#x: %#x by ports, %#x by ECAM", slot, reg, a, b)
				}
			}
		}
	}
	m.want("host bridge", uint64(m.conf(0, 0)), hostBridgeDevice<<16|hostBridgeVendor)
	m.want("its class", uint64(m.conf(0, 8)), hostBridgeClass<<8)
	m.want("function", uint64(m.conf(3, 0)), 0x10421af4)
	m.want("class and revision", uint64(m.conf(3, 8)), 0x01020304)
	m.want("subsystem", uint64(m.conf(3, 0x2c)), 0x22221111)
	m.want("extended space", uint64(m.conf(3, 0x100)), 0)
	m.want("a quadword", get(m.mmio, testECAM+3<<15, 8), 0x10421af4)
}

func TestNobody(t *testing.T) {
	m := newMachine(t)
	for name, a := range map[string]uint64{
		"slot":     1<<31 | 5<<11,
		"function": 1<<31 | 1<<8,
		"bus":      1<<31 | 1<<16,
		"disabled": 0,
	} {
		put(m.pio, 0xcf8, 4, a)
		m.want(name, get(m.pio, 0xcfc, 4), math.MaxUint32)
		put(m.pio, 0xcfc, 4, 0)
	}
	m.want("ECAM slot", get(m.mmio, testECAM+5<<15, 2), 0xffff)
	m.want("ECAM function", get(m.mmio, testECAM+1<<12, 2), 0xffff)
	m.want("over a function's end", get(m.mmio, testECAM+0xffe, 4), math.MaxUint32)
	m.want("odd", m.Metrics().OddAccesses, 1)
}

// TestAddressPort is pci_check_type1 of Linux, and the reset register in its middle.
func TestAddressPort(t *testing.T) {
	m := newMachine(t)
	put(m.pio, 0xcf8, 4, 0x80000800)
	put(m.pio, 0xcfb, 1, 0x01)
	m.want("address after a byte write", get(m.pio, 0xcf8, 4), 0x80000800)
	put(m.pio, 0xcf8, 4, math.MaxUint32)
	m.want("address", get(m.pio, 0xcf8, 4), addressMask)
	m.want("byte", get(m.pio, 0xcf8, 1), 0xff)
	m.want("word", get(m.pio, 0xcf8, 2), 0xffff)
	m.want("reset register", get(m.pio, 0xcf9, 1), 0x02)
	put(m.pio, 0xcf9, 1, 0x06)
	m.want("address after reset write", get(m.pio, 0xcf8, 4), addressMask)
	if !bytes.Equal(m.resets, []byte{6}) {
		t.Errorf("reset register got % x", m.resets)
	}
	m.want("odd", m.Metrics().OddAccesses, 3)

	bare := NewRoot(m.mmio, m.pio).Ports(nil)
	p := []byte{0}
	bare.Read(1, p)
	bare.Write(1, p)
	m.want("no reset register", uint64(p[0]), 0xff)
}

func TestHeaderWrites(t *testing.T) {
	m := newMachine(t)
	m.newFunction(1)
	for reg := uint64(0); reg < configBytes; reg += 4 {
		before := m.conf(1, reg)
		m.setConf(1, reg, math.MaxUint32)
		changed := uint64(m.conf(1, reg) ^ before)
		want := map[uint64]uint64{
			regCommand: commandMask, regCacheLine: 0xffff, regIntLine: 0xff,
			0x10: 0xfffff000, 0x14: 0xffffffe0, 0x1c: 0xfffffffe,
		}[reg]
		if changed != want {
			t.Errorf("register %#x: %#x could be written, want %#x", reg, changed, want)
		}
	}
	m.setConf(1, 0x1000-4, 1) // extended space takes nothing
}

func TestBARSizing(t *testing.T) {
	m := newMachine(t)
	m.newFunction(1)
	tests := []struct {
		name string
		reg  uint64
		want uint32
	}{
		{"32 bits", 0x10, 0xfffff000},
		{"ports", 0x14, 0xffffffe1},
		{"64 bits, low", 0x18, 0x0000000c},
		{"64 bits, high", 0x1c, 0xfffffffe},
		{"none", 0x20, 0},
		{"ROM", 0x30, 0},
	}
	m.command(1, commandIO|commandMemory) // sizing with decoding on maps nothing
	for _, tt := range tests {
		m.setConf(1, tt.reg, math.MaxUint32)
		m.want(tt.name, uint64(m.conf(1, tt.reg)), uint64(tt.want))
	}
	for _, c := range []struct {
		bus  *devices.Bus
		addr uint64
	}{{m.mmio, 0xfffff000}, {m.pio, 0xffe0}, {m.mmio, 0xfffffffe00000000}} {
		if c.bus.Read(c.addr, make([]byte, 1)) {
			t.Errorf("%#x is mapped", c.addr)
		}
	}
	if n := m.Metrics().BARConflicts; n != 0 {
		t.Errorf("%d conflicts", n)
	}
}

func TestBARMapping(t *testing.T) {
	m := newMachine(t)
	c := m.newFunction(1)
	m.setConf(1, 0x10, 0xc0000000)
	m.setConf(1, 0x14, 0xc000)
	m.setConf(1, 0x18, 0)
	m.setConf(1, 0x1c, 0x10)
	there := func(bus *devices.Bus, addr uint64, want bool) {
		t.Helper()
		if got := bus.Read(addr, make([]byte, 1)); got != want {
			t.Errorf("%#x is mapped: %v", addr, got)
		}
	}
	steps := []struct {
		name       string
		do         func()
		mem, io    bool
		mem64      bool
		mem32moved bool
	}{
		{"off", func() {}, false, false, false, false},
		{"memory", func() { m.command(1, commandMemory) }, true, false, true, false},
		{"both", func() { m.command(1, commandMemory|commandIO) }, true, true, true, false},
		{"moved", func() { m.setConf(1, 0x10, 0xd0000000) }, false, true, true, true},
		{"ports out of range", func() { m.setConf(1, 0x14, 0x1c000) }, false, false, true, true},
		{"address zero", func() { m.setConf(1, 0x10, 0) }, false, false, true, false},
		{"reset", c.Reset, false, false, false, false},
	}
	for _, s := range steps {
		t.Log(s.name)
		s.do()
		there(m.mmio, 0xc0000fff, s.mem)
		there(m.pio, 0xc01f, s.io)
		there(m.mmio, 0x1000000000, s.mem64)
		there(m.mmio, 0xd0000000, s.mem32moved)
		there(m.mmio, 0xc0001000, false)
	}
	m.want("command after reset", uint64(m.conf(1, regCommand)&0xffff), 0)
	if c.BusMaster() {
		t.Error("bus master after reset")
	}
}

// A BAR over another device waits until the place is free.
func TestBARConflict(t *testing.T) {
	m := newMachine(t)
	m.newFunction(1)
	m.newFunction(2)
	for _, slot := range []int{1, 2} {
		m.setConf(slot, 0x10, 0xc0000000)
		m.command(slot, commandMemory)
	}
	m.want("conflicts", m.Metrics().BARConflicts, 1)
	put(m.mmio, 0xc0000000, 1, 1) // to slot 1
	m.setConf(1, 0x10, 0xc0001000)
	m.want("slot 2 has the place", get(m.mmio, 0xc0000000, 1), 0)
	m.want("slot 1 moved", get(m.mmio, 0xc0001000, 1), 1)
	m.setConf(1, 0x10, testECAM+0x1000) // over ECAM: the guest cannot take it away
	m.want("conflicts", m.Metrics().BARConflicts, 2)
	m.want("host bridge", uint64(m.conf(0, 0)), hostBridgeDevice<<16|hostBridgeVendor)
}

func TestAddBARRefuses(t *testing.T) {
	dev := &ram{}
	tests := []struct {
		name  string
		index int
		bar   BAR
	}{
		{"kind", 0, BAR{SizeBytes: 16, Device: dev}},
		{"index", 6, BAR{Kind: Memory32, SizeBytes: 16, Device: dev}},
		{"negative", -1, BAR{Kind: Memory32, SizeBytes: 16, Device: dev}},
		{"64 bits in the last", 5, BAR{Kind: Memory64, SizeBytes: 16, Device: dev}},
		{"not a power of two", 0, BAR{Kind: Memory32, SizeBytes: 24, Device: dev}},
		{"zero", 0, BAR{Kind: Memory32, Device: dev}},
		{"small", 0, BAR{Kind: Memory32, SizeBytes: 8, Device: dev}},
		{"large", 0, BAR{Kind: Memory32, SizeBytes: 1 << 32, Device: dev}},
		{"ports", 0, BAR{Kind: IO, SizeBytes: 512, Device: dev}},
		{"prefetchable ports", 0, BAR{Kind: IO, SizeBytes: 16, Device: dev, Prefetchable: true}},
		{"no device", 0, BAR{Kind: Memory32, SizeBytes: 16}},
		{"used", 2, BAR{Kind: Memory32, SizeBytes: 16, Device: dev}},
		{"upper half used", 3, BAR{Kind: Memory32, SizeBytes: 16, Device: dev}},
		{"overlaps a 64 bit one", 1, BAR{Kind: Memory64, SizeBytes: 16, Device: dev}},
	}
	for _, tt := range tests {
		c := NewConfig(testID)
		if err := c.AddBAR(2, BAR{Kind: Memory64, SizeBytes: 16, Device: dev}); err != nil {
			t.Fatal(err)
		}
		if err := c.AddBAR(tt.index, tt.bar); !errors.Is(err, ErrBadBAR) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestAdd(t *testing.T) {
	m := newMachine(t)
	c := m.newFunction(1)
	for _, slot := range []int{-1, 0, 1, Slots} {
		if m.Add(slot, c) == nil {
			t.Errorf("slot %d was taken", slot)
		}
	}
	if err := c.AddBAR(4, BAR{Kind: Memory32, SizeBytes: 16, Device: &ram{}}); !errors.Is(err, ErrBadBAR) {
		t.Errorf("AddBAR on the bus: %v", err)
	}
}

func TestCapabilities(t *testing.T) {
	m := newMachine(t)
	c := NewConfig(testID)
	first, err := c.AddCapability(0x09, []byte{5, 1, 2}, []byte{0, 0, 0xf0})
	m.must(err)
	second, err := c.AddCapability(0x05, []byte{0, 0}, []byte{0, 0})
	m.must(err)
	m.must(m.Add(1, c))
	m.want("status", uint64(m.conf(1, regCommand)>>16), statusCapsList)
	m.want("pointer", uint64(m.conf(1, regCapPointer)), uint64(first))
	m.want("first", uint64(m.conf(1, uint64(first))), 0x01050009|uint64(second)<<8)
	m.want("second", uint64(m.conf(1, uint64(second))), 0x05)
	m.setConf(1, uint64(first)+4, math.MaxUint32)
	m.want("body", uint64(m.conf(1, uint64(first)+4)), 0xf2)
	if _, err := c.AddCapability(1, make([]byte, 200), make([]byte, 200)); !errors.Is(err, ErrNoCapSpace) {
		t.Errorf("too long: %v", err)
	}
	if _, err := c.AddCapability(1, make([]byte, 2), nil); err == nil {
		t.Error("no mask")
	}
}
