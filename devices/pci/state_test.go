package pci

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"sync"
	"testing"
)

// copyOf takes a state through JSON.
func copyOf[S any](t testing.TB, s S) (back S) {
	t.Helper()
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &back); err != nil {
		t.Fatal(err)
	}
	return back
}

func TestRootSaveRestore(t *testing.T) {
	a, b := newMachine(t), newMachine(t)
	put(a.pio, 0xcf8, 4, 0x80001234)
	a.setConf(0, regIntLine, 7)
	s := copyOf(t, a.Root.State())
	a.must(b.Restore(s))
	if !reflect.DeepEqual(b.Root.State(), s) {
		t.Errorf("state %+v, want %+v", b.Root.State(), s)
	}
	b.want("address", get(b.pio, 0xcf8, 4), 0x80001234)
	b.want("interrupt line", uint64(b.conf(0, regIntLine)), 7)
	b.Root.Reset()
	b.want("address after reset", get(b.pio, 0xcf8, 4), 0)
	b.want("interrupt line after reset", uint64(b.conf(0, regIntLine)), 0)

	s.Address = 1
	if err := b.Restore(s); !errors.Is(err, ErrState) {
		t.Errorf("reserved bits: %v", err)
	}
	if err := b.Restore(State{}); !errors.Is(err, ErrState) {
		t.Errorf("empty: %v", err)
	}
}

// Two functions have changed places since; either order of Restore must do.
func TestRestoreMapsBARs(t *testing.T) {
	for _, order := range [][]int{{1, 2}, {2, 1}} {
		a, b := newMachine(t), newMachine(t)
		from := map[int]*Config{1: a.newFunction(1), 2: a.newFunction(2)}
		to := map[int]*Config{1: b.newFunction(1), 2: b.newFunction(2)}
		for slot := range from {
			a.setConf(slot, 0x10, 0xc0000000+uint32(slot)<<12)
			b.setConf(slot, 0x10, 0xc0000000+uint32(3-slot)<<12)
			a.command(slot, commandMemory)
			b.command(slot, commandMemory)
		}
		put(b.mmio, 0xc0001000, 1, 2) // reaches slot 2's memory
		for _, slot := range order {
			b.must(to[slot].Restore(copyOf(t, from[slot].State())))
		}
		b.want("slot 1", get(b.mmio, 0xc0001000, 1), 0)
		b.want("slot 2", get(b.mmio, 0xc0002000, 1), 2)
	}
}

func TestMSIXSaveRestore(t *testing.T) {
	a, b := newMSIX(t), newMSIX(t)
	a.vector(0, 0xfee00000, 0x31, 0)
	a.vector(1, 0xfee00000, 0x32, entryMasked)
	a.control(msixEnable | msixMaskAll)
	a.x.Signal(0)
	a.x.Signal(1)
	s := copyOf(t, a.c.State())
	b.must(b.c.Restore(s))
	if !reflect.DeepEqual(b.c.State(), s) {
		t.Error("state changed by restore")
	}
	b.expect("restored")
	b.control(msixEnable)
	b.expect("unmasked", message{0xfee00000, 0x31})

	refused := map[string]func(*ConfigState){
		"registers":    func(s *ConfigState) { s.Registers = s.Registers[:100] },
		"vendor":       func(s *ConfigState) { s.Registers[0] ^= 1 },
		"BAR size":     func(s *ConfigState) { s.Registers[0x21] |= 1 },
		"no MSI-X":     func(s *ConfigState) { s.MSIX = nil },
		"table":        func(s *ConfigState) { s.MSIX.Entries = s.MSIX.Entries[1:] },
		"pending":      func(s *ConfigState) { s.MSIX.Pending = nil },
		"beyond table": func(s *ConfigState) { s.MSIX.Pending[2] = 1 << 2 },
		"address":      func(s *ConfigState) { s.MSIX.Entries[3].Address = 2 },
	}
	before := b.c.State()
	for name, change := range refused {
		bad := copyOf(t, s)
		change(&bad)
		if err := b.c.Restore(bad); !errors.Is(err, ErrState) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !reflect.DeepEqual(b.c.State(), before) {
		t.Error("a refused state changed the function")
	}
}

// Two vCPUs move BARs while a third uses them and a device raises interrupts.
func TestConcurrent(t *testing.T) {
	m := newMSIX(t)
	m.newFunction(2)
	m.control(msixEnable)
	var wg sync.WaitGroup
	const rounds = 500
	for slot, bar := range map[int]uint64{1: 0x20, 2: 0x10} {
		wg.Go(func() {
			for i := range uint32(rounds) {
				m.setConf(slot, bar, msixAt+i%4<<13)
				m.command(slot, commandMemory*(i%3)|commandMaster)
			}
		})
	}
	wg.Go(func() {
		for i := range uint64(4 * rounds) {
			put(m.mmio, msixAt+i%4<<13+12, 4, i%2)
			get(m.mmio, msixAt+i%4<<13, 4)
		}
	})
	wg.Go(func() {
		for range rounds {
			m.x.Signal(0)
			m.c.State()
		}
	})
	wg.Wait()
	m.command(2, 0)
	m.setConf(1, 0x20, msixAt)
	m.command(1, commandMemory)
	if !m.mmio.Read(msixAt, make([]byte, 4)) {
		t.Error("the last write does not count")
	}
}

// FuzzPCIConfig lets a guest write anything anywhere: configuration, BARs, tables.
// The fixed bits stay, the bus follows the registers, and every own state restores.
func FuzzPCIConfig(f *testing.F) {
	f.Add([]byte{1, 0x10, 0, 0, 0xc0, 1, 0x04, 6, 0, 0, 2, 0, 0, 0, 0})
	f.Add([]byte{1, 0x20, 0, 0, 0xc0, 1, 0x04, 6, 0, 0, 1, 0x40, 0, 0, 0x80, 3, 0, 0, 0, 0, 4, 0, 0, 0, 0, 5, 0, 0, 0, 0})
	f.Add([]byte{0, 0xf8, 0, 0, 0x80, 0, 0xfc, 1, 2, 3, 1, 0x10, 255, 255, 255, 1, 4, 255, 255, 255})
	f.Fuzz(func(t *testing.T, ops []byte) {
		m := newMSIX(t)
		m.newFunction(2)
		fixed := fixedBits(m)
		for ; len(ops) >= 5; ops = ops[5:] {
			at, v := uint64(ops[1]), uint64(ops[2])|uint64(ops[3])<<16|uint64(ops[4])<<24
			n := 1 << (ops[2] % 4)
			switch ops[0] % 6 {
			case 0:
				put(m.pio, 0xc00|at, min(n, 4), v)
				get(m.pio, 0xc00|at, min(n, 4))
			case 1, 2:
				slot := uint64(ops[0]%6) << 15
				put(m.mmio, testECAM+slot+at, n, v)
				get(m.mmio, testECAM+slot+at, n)
			case 3:
				put(m.mmio, msixAt+at, n, v)
				get(m.mmio, msixAt+at, n)
			case 4:
				m.x.Signal(int(at) - 10)
			case 5:
				m.must(m.c.Restore(copyOf(t, m.c.State())))
				m.must(m.Root.Restore(copyOf(t, m.Root.State())))
			}
			checkMapper(t, m.Root)
		}
		if got := fixedBits(m); !reflect.DeepEqual(got, fixed) {
			t.Fatal("the guest changed bits that are fixed")
		}
	})
}

func fixedBits(m *msixMachine) (fixed []byte) {
	for i, v := range m.c.regs {
		fixed = append(fixed, v&^m.c.writable[i])
	}
	return fixed
}

// checkMapper compares what is on the bus with what the registers say.
func checkMapper(t *testing.T, r *Root) {
	r.mapper.mu.Lock()
	defer r.mapper.mu.Unlock()
	for _, b := range r.mapper.bars {
		want, wanted := b.owner.placement(b)
		if b.wanted != wanted || wanted && b.want != want || b.mapped && (!wanted || b.base != want) {
			t.Fatalf("BAR at %#x: wanted %v at %#x, mapped %v at %#x", b.reg, wanted, want, b.mapped, b.base)
		}
		if b.mapped && r.mapper.bus(b).Insert(b.base+b.SizeBytes-1, 1, b.Device) == nil {
			t.Fatalf("BAR at %#x is not on the bus", b.reg)
		}
		if b.mapped && b.base > math.MaxUint64-b.SizeBytes {
			t.Fatalf("BAR at %#x wraps", b.reg)
		}
	}
}
