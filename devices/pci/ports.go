package pci

import (
	"encoding/binary"

	"github.com/fineline-vmm/fineline/devices"
)

// addressMask keeps enable, bus, slot, function and register of CONFIG_ADDRESS; the
// reserved bits read zero.
const (
	addressMask   = 0x80fffffc
	addressEnable = 1 << 31

	dataOffset  = 4 // of the data port from AddressPort
	resetOffset = 1
)

// ports is mechanism #1.
type ports struct {
	r     *Root
	reset devices.Device
}

// Ports is the device of PortsBytes ports at AddressPort. Byte accesses to 0xcf9 go
// to reset, a device of one byte; nil when there is none.
func (r *Root) Ports(reset devices.Device) devices.Device { return ports{r, reset} }

func (c ports) Read(off uint64, p []byte) {
	switch {
	case off >= dataOffset:
		c.r.read(c.r.selected(off-dataOffset), p)
	case off == 0 && len(p) == 4:
		binary.LittleEndian.PutUint32(p, c.r.configAddress())
	case off == resetOffset && len(p) == 1 && c.reset != nil:
		c.reset.Read(0, p)
	default:
		// Only a full dword is CONFIG_ADDRESS; anything else passes through to
		// a bus where nobody is.
		ones(p)
		c.r.countOdd()
	}
}

func (c ports) Write(off uint64, p []byte) {
	switch {
	case off >= dataOffset:
		c.r.write(c.r.selected(off-dataOffset), p)
	case off == 0 && len(p) == 4:
		c.r.setConfigAddress(binary.LittleEndian.Uint32(p))
	case off == resetOffset && len(p) == 1 && c.reset != nil:
		c.reset.Write(0, p)
	default:
		c.r.countOdd()
	}
}

// selected is where byte n of the data port leads.
func (r *Root) selected(n uint64) target {
	a := r.configAddress()
	return target{
		enabled: a&addressEnable != 0,
		bus:     uint8(a >> 16),
		slot:    uint8(a >> 11 & 0x1f),
		fn:      uint8(a >> 8 & 7),
		reg:     uint64(a&0xfc) + n,
	}
}

func (r *Root) configAddress() uint32 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.address
}

func (r *Root) setConfigAddress(v uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.address = v & addressMask
}

func (r *Root) countOdd() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.metrics.OddAccesses++
}
