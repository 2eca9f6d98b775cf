package pci

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
)

// Registers of a type 0 header, PCI Local Bus 3.0 §6.1.
const (
	regVendor      = 0x00
	regDevice      = 0x02
	regCommand     = 0x04
	regStatus      = 0x06
	regRevision    = 0x08
	regClass       = 0x09 // three bytes
	regCacheLine   = 0x0c
	regLatency     = 0x0d
	regBAR0        = 0x10
	regSubVendor   = 0x2c
	regSubsystem   = 0x2e
	regCapPointer  = 0x34
	regIntLine     = 0x3c
	headerBytes    = 0x40
	configBytes    = 256
	commandIO      = 1 << 0
	commandMemory  = 1 << 1
	commandMaster  = 1 << 2
	commandMask    = commandIO | commandMemory | commandMaster | 1<<6 | 1<<8 | 1<<10 // parity, SERR#, INTx disable
	statusCapsList = 1 << 4
)

// Errors of building a Config.
var (
	ErrBadBAR      = errors.New("bad BAR")
	ErrNoCapSpace  = errors.New("capabilities do not fit configuration space")
	ErrBadMSIX     = errors.New("bad MSI-X")
	errShortHeader = errors.New("capability body and mask differ in length")
)

// Identity is who a function is.
type Identity struct {
	VendorID, DeviceID             uint16
	Class                          uint32 // class, subclass and interface: 24 bits
	Revision                       uint8
	SubsystemVendorID, SubsystemID uint16
}

// Config is a type 0 configuration space. Build it with NewConfig and the Add
// methods before Root.Add; then all methods may be called from any goroutine.
// A device that must see writes embeds it and wraps WriteConfig.
type Config struct {
	mu       sync.Mutex
	regs     [configBytes]byte
	writable [configBytes]byte // bits a guest may change; they are zero at power-on
	bars     []*bar
	msix     *MSIX
	msixCap  int // offset of the MSI-X capability, 0 = none
	lastCap  int // offset of the register that points to the next capability
	freeCap  int // first unused byte for capabilities
	mapper   *mapper
}

var _ Function = (*Config)(nil)

// NewConfig returns a configuration space without BARs and capabilities.
func NewConfig(id Identity) *Config {
	c := &Config{lastCap: regCapPointer, freeCap: headerBytes}
	put16 := binary.LittleEndian.PutUint16
	put16(c.regs[regVendor:], id.VendorID)
	put16(c.regs[regDevice:], id.DeviceID)
	c.regs[regRevision] = id.Revision
	c.regs[regClass], c.regs[regClass+1], c.regs[regClass+2] = byte(id.Class), byte(id.Class>>8), byte(id.Class>>16)
	put16(c.regs[regSubVendor:], id.SubsystemVendorID)
	put16(c.regs[regSubsystem:], id.SubsystemID)
	put16(c.writable[regCommand:], commandMask)
	c.writable[regCacheLine], c.writable[regLatency], c.writable[regIntLine] = 0xff, 0xff, 0xff
	return c
}

// AddCapability appends a capability and returns its offset. body follows the two
// header bytes; mask has ones where a guest may write, and there body must be zero.
func (c *Config) AddCapability(id uint8, body, mask []byte) (offset int, err error) {
	if len(body) != len(mask) {
		return 0, errShortHeader
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	offset = c.freeCap
	end := offset + 2 + len(body)
	if end > configBytes {
		return 0, fmt.Errorf("%w: %d bytes at %#x", ErrNoCapSpace, 2+len(body), offset)
	}
	c.regs[offset] = id
	for i := range body {
		c.regs[offset+2+i] = body[i] &^ mask[i]
	}
	copy(c.writable[offset+2:], mask)
	c.regs[c.lastCap] = byte(offset)
	c.lastCap = offset + 1
	c.freeCap = (end + 3) &^ 3 // capabilities start at dwords
	c.regs[regStatus] |= statusCapsList
	return offset, nil
}

// ReadConfig implements Function. There are no extended capabilities: zeros from 256.
func (c *Config) ReadConfig(off uint64, p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(p)
	if off < configBytes {
		copy(p, c.regs[off:])
	}
}

// WriteConfig implements Function and moves BARs when the guest changed them.
func (c *Config) WriteConfig(off uint64, p []byte) {
	if m := c.store(off, p); m != nil {
		m.refresh(c)
	}
}

// store changes the registers and returns the mapper when a BAR may have to move.
func (c *Config) store(off uint64, p []byte) *mapper {
	c.mu.Lock()
	defer c.mu.Unlock()
	decode := false
	for i, v := range p {
		reg := off + uint64(i)
		if reg >= configBytes {
			break
		}
		mask := c.writable[reg]
		old := c.regs[reg]
		c.regs[reg] = old&^mask | v&mask
		if c.regs[reg] != old && (reg == regCommand || reg >= regBAR0 && reg < regBAR0+4*barCount) {
			decode = true
		}
	}
	c.updateMSIX()
	if !decode {
		return nil
	}
	return c.mapper
}

// BusMaster reports whether the guest lets the function access memory.
func (c *Config) BusMaster() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.busMaster()
}

func (c *Config) busMaster() bool { return c.regs[regCommand]&commandMaster != 0 }

// Reset is the machine's reset: what a guest wrote is gone and no BAR is mapped.
func (c *Config) Reset() {
	c.mu.Lock()
	for i := range c.regs {
		c.regs[i] &^= c.writable[i]
	}
	if c.msix != nil {
		c.msix.reset()
	}
	c.updateMSIX()
	m := c.mapper
	c.mu.Unlock()
	if m != nil {
		m.refresh(c)
	}
}

// bind is called by Root.Add.
func (c *Config) bind(m *mapper) {
	c.mu.Lock()
	c.mapper = m
	bars := c.bars
	c.mu.Unlock()
	m.add(bars)
	m.refresh(c)
}
