package acpi

import (
	"fmt"

	"github.com/fineline-vmm/fineline/memory"
)

// Memory is what Write needs of guest memory; *memory.Guest has it.
type Memory interface {
	WriteAt(gpa memory.GPA, p []byte) error
}

// Config is the board as the tables describe it. COM1 is at port 0x3f8, the real-time clock at 0x70, and the
// power management block where package power puts it.
type Config struct {
	CPUs int // local APIC IDs 0 to CPUs-1, at most MaxCPUs

	LAPICBase  uint32
	IOAPICBase uint32 // its inputs are the GSIs from 0 on

	ECAMBase  uint32 // PCI configuration space, 1 MiB a bus
	ECAMBuses int    // buses from 0 on, at most 256

	PCIWindowBase  uint32 // where 32-bit BARs may go
	PCIWindowBytes uint32

	PCIWindow64Base  uint64 // where 64-bit BARs may go
	PCIWindow64Bytes uint64 // 0 = no such window

	SCI       uint8 // legacy interrupts, 1 to 15
	RTCIRQ    uint8
	SerialIRQ uint8
}

// MaxCPUs is how many CPUs have an 8-bit APIC ID; 255 is the broadcast.
const MaxCPUs = 255

const (
	areaAlignBytes  = 16 // of the RSDP, ACPI 6.5 §5.2.5.1
	tableAlignBytes = 64 // FACS needs it (§5.2.10); for all, it keeps tables apart by cache lines
	oneMiB          = 1 << 20
	fourGiB         = 4 << 30
)

func (c Config) validate() error {
	below4G := func(base uint32, sizeBytes uint64) bool { return uint64(base)+sizeBytes <= fourGiB }
	legacy := func(n uint8) bool { return n >= 1 && n <= 15 }
	switch {
	case c.CPUs < 1 || c.CPUs > MaxCPUs:
		return fmt.Errorf("acpi: %d CPUs: the tables describe 1 to %d", c.CPUs, MaxCPUs)
	case c.ECAMBuses < 1 || c.ECAMBuses > 256 || c.ECAMBase%oneMiB != 0 || !below4G(c.ECAMBase, uint64(c.ECAMBuses)*oneMiB):
		return fmt.Errorf("acpi: PCI configuration space of %d buses at %#x is misaligned or not below 4 GiB", c.ECAMBuses, c.ECAMBase)
	case c.PCIWindowBytes == 0 || !below4G(c.PCIWindowBase, uint64(c.PCIWindowBytes)):
		return fmt.Errorf("acpi: PCI window of %#x bytes at %#x is empty or not below 4 GiB", c.PCIWindowBytes, c.PCIWindowBase)
	case c.PCIWindow64Bytes > 0 && c.PCIWindow64Base+(c.PCIWindow64Bytes-1) < c.PCIWindow64Base:
		return fmt.Errorf("acpi: PCI window of %#x bytes at %#x passes the end of the address space", c.PCIWindow64Bytes, c.PCIWindow64Base)
	case !legacy(c.SCI) || !legacy(c.RTCIRQ) || !legacy(c.SerialIRQ):
		return fmt.Errorf("acpi: interrupts SCI %d, RTC %d, serial %d: legacy lines are 1 to 15", c.SCI, c.RTCIRQ, c.SerialIRQ)
	}
	return nil
}

// Write stores the tables in [at, at+limitBytes) and returns the address of the RSDP, which is at. Nothing
// is written on an error, except by a failing mem.
func Write(mem Memory, at memory.GPA, limitBytes uint64, cfg Config) (memory.GPA, error) {
	if err := cfg.validate(); err != nil {
		return 0, err
	}
	if at%areaAlignBytes != 0 || at >= fourGiB || limitBytes > fourGiB-uint64(at) {
		return 0, fmt.Errorf("acpi: table area of %#x bytes at %#x is misaligned or not below 4 GiB", limitBytes, at)
	}
	image := build(at, cfg)
	if uint64(len(image)) > limitBytes {
		return 0, fmt.Errorf("acpi: tables of %d bytes do not fit in the %d bytes at %#x", len(image), limitBytes, at)
	}
	if err := mem.WriteAt(at, image); err != nil {
		return 0, fmt.Errorf("acpi: write the tables: %w", err)
	}
	return at, nil
}

// build lays the tables out behind the RSDP, in the order in which they point to each other.
func build(at memory.GPA, cfg Config) []byte {
	a := &area{at: at, bytes: make([]byte, rsdpBytes)}
	facsAt := a.place(facs())
	dsdtAt := a.place(dsdt(cfg))
	tables := []uint32{
		a.place(fadt(cfg, facsAt, dsdtAt)),
		a.place(madt(cfg)),
		a.place(mcfg(cfg)),
	}
	copy(a.bytes, rsdp(a.place(rsdt(tables)), a.place(xsdt(tables))))
	return a.bytes
}

// area is the growing image of the tables.
type area struct {
	at    memory.GPA
	bytes []byte
}

// place appends a table at an aligned guest address and returns that.
func (a *area) place(table []byte) uint32 {
	end := uint64(a.at) + uint64(len(a.bytes))
	start := (end + tableAlignBytes - 1) &^ (tableAlignBytes - 1)
	a.bytes = append(a.bytes, make([]byte, start-end)...)
	a.bytes = append(a.bytes, table...)
	return uint32(start)
}
