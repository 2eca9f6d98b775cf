package pci

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/fineline-vmm/fineline/devices"
)

const barCount = 6

// Kind is the address space and width of a BAR.
type Kind int

// The kinds. The zero Kind is invalid.
const (
	Memory32 Kind = iota + 1
	Memory64      // takes two BAR registers
	IO
)

// Low bits of a BAR register, PCI Local Bus 3.0 §6.2.5.1.
const (
	barIO           = 1 << 0
	bar64           = 1 << 2
	barPrefetchable = 1 << 3
)

// BAR is a range of addresses that the guest places. Device gets the accesses; its
// size is a power of two, from 16 bytes of memory or 4 ports, to 256 ports.
type BAR struct {
	Kind         Kind
	Prefetchable bool
	SizeBytes    uint64
	Device       devices.Device
}

// bar is a BAR of a function. wanted to base are guarded by mapper.mu.
type bar struct {
	BAR
	owner *Config
	reg   int // offset of its register

	wanted bool // the guest enabled it at wantBase
	want   uint64
	mapped bool // it is on the bus at base
	base   uint64
}

// AddBAR makes the index-th register (0 to 5) a BAR. The error wraps ErrBadBAR.
func (c *Config) AddBAR(index int, b BAR) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.addBAR(index, b)
}

func (c *Config) addBAR(index int, b BAR) error {
	if err := c.checkBAR(index, b); err != nil {
		return fmt.Errorf("%w %d of %#x bytes: %w", ErrBadBAR, index, b.SizeBytes, err)
	}
	reg := regBAR0 + 4*index
	low, fixed := byte(0), uint64(0xf)
	switch b.Kind {
	case Memory64:
		low = bar64
	case IO:
		low, fixed = barIO, 0x3
	}
	if b.Prefetchable {
		low |= barPrefetchable
	}
	c.regs[reg] = low
	// The bits below the size stay zero: that is how a guest learns it.
	mask := ^(b.SizeBytes - 1) &^ fixed
	binary.LittleEndian.PutUint32(c.writable[reg:], uint32(mask))
	if b.Kind == Memory64 {
		binary.LittleEndian.PutUint32(c.writable[reg+4:], uint32(mask>>32))
	}
	c.bars = append(c.bars, &bar{BAR: b, owner: c, reg: reg})
	return nil
}

func (c *Config) checkBAR(index int, b BAR) error {
	registers, low, high := 1, uint64(16), uint64(1)<<31
	switch b.Kind {
	case Memory32:
	case Memory64:
		registers, high = 2, 1<<62
	case IO:
		low, high = 4, 256
	default:
		return fmt.Errorf("kind %d is unknown", b.Kind)
	}
	switch {
	case index < 0 || index+registers > barCount:
		return fmt.Errorf("registers are 0 to %d", barCount-1)
	case bits.OnesCount64(b.SizeBytes) != 1 || b.SizeBytes < low || b.SizeBytes > high:
		return fmt.Errorf("size must be a power of two from %#x to %#x", low, high)
	case b.Kind == IO && b.Prefetchable:
		return fmt.Errorf("ports cannot be prefetchable")
	case b.Device == nil:
		return fmt.Errorf("no device")
	case c.mapper != nil:
		return fmt.Errorf("the function is on a bus already")
	}
	for _, o := range c.bars {
		end := o.reg + 4
		if o.Kind == Memory64 {
			end += 4
		}
		if first := regBAR0 + 4*index; first < end && o.reg < first+4*registers {
			return fmt.Errorf("register is in use")
		}
	}
	return nil
}

// placement returns where the guest wants the BAR, and whether it wants it at all.
func (c *Config) placement(b *bar) (base uint64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	base = uint64(binary.LittleEndian.Uint32(c.regs[b.reg:]))
	enable, limit := byte(commandMemory), uint64(1<<32-1)
	switch b.Kind {
	case IO:
		base &^= 0x3
		enable, limit = commandIO, 1<<16
	case Memory32:
		base &^= 0xf
	case Memory64:
		base = base&^0xf | uint64(binary.LittleEndian.Uint32(c.regs[b.reg+4:]))<<32
		limit = 1<<64 - 1
	}
	if c.regs[regCommand]&enable == 0 || base == 0 {
		return 0, false
	}
	// base is a multiple of the size, so this cannot wrap. The last address of a
	// memory space means that the guest is sizing.
	return base, base+b.SizeBytes-1 < limit
}
