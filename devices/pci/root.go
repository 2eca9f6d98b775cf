package pci

import (
	"fmt"
	"sync"

	"github.com/fineline-vmm/fineline/devices"
)

// Where the root is on a PC. The address of ECAM is the machine's choice.
const (
	AddressPort = 0xcf8
	PortsBytes  = 8       // address and data port
	ECAMBytes   = 1 << 20 // bus 0
	Slots       = 32
)

// Identity of the host bridge: QEMU's generic PCI Express host, for which no guest
// has a driver that expects registers of a certain chipset.
const (
	hostBridgeVendor = 0x1b36
	hostBridgeDevice = 0x0008
	hostBridgeClass  = 0x060000
)

// Function is one function's configuration space. off+len(p) is at most
// FunctionBytes. Both methods come from any vCPU's thread.
type Function interface {
	ReadConfig(off uint64, p []byte)
	WriteConfig(off uint64, p []byte)
}

// FunctionBytes is the size of a function's configuration space in ECAM; mechanism
// #1 reaches the first 256.
const FunctionBytes = 4096

// Root is bus 0. All methods may be called from any goroutine.
type Root struct {
	mapper mapper
	bridge *Config

	mu      sync.Mutex
	address uint32 // CONFIG_ADDRESS; reserved bits are zero
	slots   [Slots]Function
	metrics Metrics
}

// Metrics counts what a guest did that hardware would not answer.
type Metrics struct {
	OddAccesses  uint64 `json:"odd_accesses"`  // of a width or at an offset nobody decodes
	BARConflicts uint64 `json:"bar_conflicts"` // attempts to map a BAR over another device
}

// NewRoot returns a root with a host bridge. BARs are mapped on mmio and pio.
func NewRoot(mmio, pio *devices.Bus) *Root {
	r := &Root{mapper: mapper{mmio: mmio, pio: pio}}
	r.bridge = NewConfig(Identity{VendorID: hostBridgeVendor, DeviceID: hostBridgeDevice, Class: hostBridgeClass})
	r.slots[0] = r.bridge
	return r
}

// Add puts f in a slot, 1 to 31. If f embeds a Config, its BARs are mapped from now on.
func (r *Root) Add(slot int, f Function) error {
	if slot < 1 || slot >= Slots {
		return fmt.Errorf("pci slot %d: must be 1 to %d", slot, Slots-1)
	}
	if err := r.occupy(slot, f); err != nil {
		return err
	}
	if b, ok := f.(interface{ bind(*mapper) }); ok {
		b.bind(&r.mapper)
	}
	return nil
}

func (r *Root) occupy(slot int, f Function) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.slots[slot] != nil {
		return fmt.Errorf("pci slot %d: already in use", slot)
	}
	r.slots[slot] = f
	return nil
}

// Metrics returns a copy of the counters.
func (r *Root) Metrics() Metrics {
	r.mu.Lock()
	m := r.metrics
	r.mu.Unlock()
	m.BARConflicts = r.mapper.conflictCount()
	return m
}

// ECAM is the device of ECAMBytes of memory-mapped configuration space.
func (r *Root) ECAM() devices.Device { return ecam{r} }

type ecam struct{ r *Root }

func (e ecam) Read(off uint64, p []byte) { e.r.read(ecamTarget(off), p) }

func (e ecam) Write(off uint64, p []byte) { e.r.write(ecamTarget(off), p) }

// target is a place in configuration space.
type target struct {
	enabled       bool
	bus, slot, fn uint8
	reg           uint64
}

// ecamTarget splits an ECAM offset; bits 20 and up, the bus, are zero by the claim's size.
func ecamTarget(off uint64) target {
	return target{true, 0, uint8(off >> 15 & 0x1f), uint8(off >> 12 & 7), off & (FunctionBytes - 1)}
}

func (r *Root) read(t target, p []byte) {
	if f := r.find(t, len(p)); f != nil {
		f.ReadConfig(t.reg, p)
		return
	}
	ones(p)
}

func (r *Root) write(t target, p []byte) {
	if f := r.find(t, len(p)); f != nil {
		f.WriteConfig(t.reg, p)
	}
}

// find returns the function that decodes an access, or nil.
func (r *Root) find(t target, sizeBytes int) Function {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t.reg+uint64(sizeBytes) > FunctionBytes {
		r.metrics.OddAccesses++
		return nil
	}
	if !t.enabled || t.bus != 0 || t.fn != 0 {
		return nil
	}
	return r.slots[t.slot]
}

// ones is what a read sees that nobody answers.
func ones(p []byte) {
	for i := range p {
		p[i] = 0xff
	}
}
