package pci

import (
	"errors"
	"math"
	"reflect"
	"testing"
)

type message struct {
	addr uint64
	data uint32
}

// msixMachine is a machine whose slot 1 has MSI-X with its BAR at msixAt.
type msixMachine struct {
	*machine
	c    *Config
	x    *MSIX
	sent []message
}

const (
	msixAt      = 0xc0000000
	msixVectors = 130
	msixPBA     = msixAt + 4096
)

func newMSIX(t testing.TB) *msixMachine {
	t.Helper()
	m := &msixMachine{machine: newMachine(t), c: NewConfig(testID)}
	var err error
	m.x, err = m.c.AddMSIX(4, msixVectors, func(a uint64, d uint32) { m.sent = append(m.sent, message{a, d}) })
	m.must(err)
	m.must(m.Add(1, m.c))
	m.setConf(1, 0x20, msixAt)
	m.command(1, commandMemory|commandMaster)
	return m
}

// control writes the upper half of the capability's first dword.
func (m *msixMachine) control(v uint32) { m.setConf(1, headerBytes, v<<16) }

// vector fills a table entry; control is its mask bit.
func (m *msixMachine) vector(v int, addr uint64, data, control uint32) {
	at := uint64(msixAt + 16*v)
	put(m.mmio, at, 8, addr)
	put(m.mmio, at+8, 4, uint64(data))
	put(m.mmio, at+12, 4, uint64(control))
}

func (m *msixMachine) expect(what string, want ...message) {
	m.t.Helper()
	if len(m.sent) != len(want) || len(want) > 0 && !reflect.DeepEqual(m.sent, want) {
		m.t.Errorf("%s: sent %x, want %x", what, m.sent, want)
	}
	m.sent = nil
}

func TestMSIXCapability(t *testing.T) {
	m := newMSIX(t)
	m.want("header", uint64(m.conf(1, headerBytes)), capMSIX|(msixVectors-1)<<16)
	m.want("table", uint64(m.conf(1, headerBytes+4)), 4)
	m.want("pending bits", uint64(m.conf(1, headerBytes+8)), msixPBA-msixAt|4)
	m.control(0xffff)
	m.want("control", uint64(m.conf(1, headerBytes)>>16), msixEnable|msixMaskAll|(msixVectors-1))
	for _, n := range []int{0, 2049} {
		if _, err := NewConfig(testID).AddMSIX(0, n, nil); !errors.Is(err, ErrBadMSIX) {
			t.Errorf("%d vectors: %v", n, err)
		}
	}
	if _, err := m.c.AddMSIX(0, 1, nil); !errors.Is(err, ErrBadMSIX) {
		t.Errorf("twice: %v", err)
	}
	for n, size := range map[int]uint32{1: 0xfffff000, 128: 0xfffff000, 129: 0xffffe000, 2048: 0xffff0000} {
		m, c := newMachine(t), NewConfig(testID)
		_, err := c.AddMSIX(0, n, nil)
		m.must(err)
		m.must(m.Add(1, c))
		m.setConf(1, 0x10, math.MaxUint32)
		m.want("BAR size", uint64(m.conf(1, 0x10)), uint64(size))
	}
}

func TestMSIXTable(t *testing.T) {
	m := newMSIX(t)
	m.want("masked after reset", get(m.mmio, msixAt+12, 4), entryMasked)
	m.vector(1, 0x1_fee0_0003, 0x42, math.MaxUint32)
	m.want("address", get(m.mmio, msixAt+16, 8), 0x1_fee0_0000)
	m.want("data and control", get(m.mmio, msixAt+24, 8), entryMasked<<32|0x42)
	m.want("between table and pending bits", get(m.mmio, msixAt+16*msixVectors, 4), 0)
	m.want("after the pending bits", get(m.mmio, msixPBA+24, 4), 0)
	put(m.mmio, msixAt+16*msixVectors, 4, 1)
	put(m.mmio, msixPBA, 4, 1)
	m.want("pending bits", get(m.mmio, msixPBA, 4), 0)
	m.want("a byte", get(m.mmio, msixAt, 1), 0xff)
	m.want("misaligned", get(m.mmio, msixAt+4, 8), math.MaxUint64)
	put(m.mmio, msixAt, 2, 0)
	if n := m.x.Metrics().OddAccesses; n != 3 {
		t.Errorf("%d odd accesses", n)
	}
}

func TestMSIXSignal(t *testing.T) {
	m := newMSIX(t)
	first, last := message{0xfee00000, 0x31}, message{0xfee01000, 0x32}
	m.vector(0, first.addr, first.data, 0)
	m.vector(msixVectors-1, last.addr, last.data, 0)
	raise := func() { m.x.Signal(0); m.x.Signal(msixVectors - 1) }

	raise()
	m.expect("off")
	m.control(msixEnable)
	m.expect("enabled, what was raised before is lost")
	raise()
	m.expect("on", first, last)

	m.control(msixEnable | msixMaskAll)
	raise()
	raise()
	m.expect("function masked")
	m.want("pending bits", get(m.mmio, msixPBA, 8), 1)
	m.want("pending bits", get(m.mmio, msixPBA+16, 4), 2)
	m.control(msixEnable)
	m.expect("function unmasked", first, last)
	m.want("pending bits", get(m.mmio, msixPBA, 8), 0)

	m.vector(0, first.addr, first.data, entryMasked)
	raise()
	m.expect("vector masked", last)
	m.vector(0, last.addr, first.data, 0)
	m.expect("vector unmasked, with the entry as it is then", message{last.addr, first.data})

	m.command(1, commandMemory)
	raise()
	m.expect("no bus master")
	m.command(1, commandMemory|commandMaster)
	m.expect("bus master", message{last.addr, first.data}, last)

	m.x.Signal(-1)
	m.x.Signal(msixVectors)
	m.expect("bad vectors")
	if got := m.x.Metrics(); got != (MSIXMetrics{Sent: 8, Dropped: 2, BadVectors: 2}) {
		t.Errorf("metrics %+v", got)
	}
	if !m.x.Enabled() {
		t.Error("not enabled")
	}
	m.c.Reset()
	if m.x.Enabled() {
		t.Error("enabled after reset")
	}
}
