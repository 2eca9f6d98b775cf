package boot

import (
	"encoding/binary"

	"github.com/fineline-vmm/fineline/memory"
)

// Mode is the processor mode at the kernel's entry. Zero is no mode.
type Mode int

const (
	// Protected32 is flat 32-bit protected mode without paging (PVH, multiboot).
	Protected32 Mode = iota + 1
	// Long64 is 64-bit mode on the identity map of Entry.CR3 (Linux 64-bit boot protocol).
	Long64
)

func (m Mode) String() string {
	switch m {
	case Protected32:
		return "32-bit protected mode"
	case Long64:
		return "64-bit mode"
	default:
		return "no mode"
	}
}

// Control and extended feature register bits.
const (
	cr0PE   = 1 << 0
	cr0ET   = 1 << 4 // fixed to 1 in every processor of this century
	cr0PG   = 1 << 31
	cr4PAE  = 1 << 5
	eferLME = 1 << 8
	eferLMA = 1 << 10
)

// ControlRegisters returns CR0, CR4 and EFER at the entry.
func (m Mode) ControlRegisters() (cr0, cr4, efer uint64) {
	if m == Long64 {
		return cr0PG | cr0ET | cr0PE, cr4PAE, eferLME | eferLMA
	}
	return cr0ET | cr0PE, 0, 0
}

// Selectors into the GDT of Entry, the same in both modes. The first two are Linux's __BOOT_CS and __BOOT_DS.
const (
	CodeSelector = 0x10
	DataSelector = 0x18 // DS, ES, FS, GS and SS
	TaskSelector = 0x20 // TR; the descriptor takes two slots in 64-bit mode
)

// GDTSizeBytes is the size of the table; the limit to load is one less.
const GDTSizeBytes = 6 * 8

// Segment is a segment register with its hidden part, in the terms of the descriptor's bits.
type Segment struct {
	Selector   uint16
	Base       uint64
	LimitBytes uint32 // the highest offset, in bytes whatever Granular says
	Type       uint8  // 4 bits
	CodeOrData bool   // the S bit; false = system segment
	Long       bool   // L
	Default32  bool   // D/B
	Granular   bool   // G
}

// Segments returns the registers of the mode; data goes into DS, ES, FS, GS and SS. All are present, DPL 0.
func (m Mode) Segments() (code, data, task Segment) {
	long := m == Long64
	code = Segment{Selector: CodeSelector, LimitBytes: 0xffffffff, Type: 0xb, CodeOrData: true, Long: long, Default32: !long, Granular: true}
	data = Segment{Selector: DataSelector, LimitBytes: 0xffffffff, Type: 0x3, CodeOrData: true, Default32: true, Granular: true}
	// A busy TSS of 104 bytes at 0: hardware virtualization does not enter a guest without one, and
	// Xen's PVH entry promises just this.
	task = Segment{Selector: TaskSelector, LimitBytes: 0x67, Type: 0xb}
	return code, data, task
}

// descriptor encodes s as in the Intel SDM, volume 3, figure 3-8.
func (s Segment) descriptor() uint64 {
	limit := uint64(s.LimitBytes)
	if s.Granular {
		limit >>= 12
	}
	d := limit&0xffff | s.Base&0xffffff<<16 | uint64(s.Type)<<40 | 1<<47 | limit>>16&0xf<<48 | s.Base>>24&0xff<<56
	for _, flag := range []struct {
		set bool
		bit uint
	}{{s.CodeOrData, 44}, {s.Long, 53}, {s.Default32, 54}, {s.Granular, 55}} {
		if flag.set {
			d |= 1 << flag.bit
		}
	}
	return d
}

// writeCPUTables stores what the entry's mode needs in memory and points the entry to it.
func (l *loader) writeCPUTables(e *Entry) error {
	gdt := make([]byte, GDTSizeBytes)
	code, data, task := e.Mode.Segments()
	for _, s := range []Segment{code, data, task} {
		binary.LittleEndian.PutUint64(gdt[s.Selector:], s.descriptor())
	}
	e.GDT = l.area + gdtPage
	if err := l.store(store{e.GDT, gdt}); err != nil || e.Mode != Long64 {
		return err
	}
	e.CR3 = l.area + pml4Page
	return l.writePageTables()
}

const (
	ptePresentWritable = 1<<0 | 1<<1
	pteLarge           = 1 << 7
	largePageBytes     = 2 << 20
	tableEntries       = memory.PageSize / 8
)

// writePageTables maps the first identityGiB one to one. Pages of 2 MiB: every 64-bit processor has them,
// not each has 1 GiB.
func (l *loader) writePageTables() error {
	le := binary.LittleEndian
	pml4 := le.AppendUint64(nil, uint64(l.area+pdptPage)|ptePresentWritable)
	var pdpt, pds []byte
	for i := range uint64(identityGiB) {
		pdpt = le.AppendUint64(pdpt, uint64(l.area+pdPages)+i*memory.PageSize|ptePresentWritable)
	}
	for i := range uint64(identityGiB * tableEntries) {
		pds = le.AppendUint64(pds, i*largePageBytes|ptePresentWritable|pteLarge)
	}
	return l.store(store{l.area + pml4Page, pml4}, store{l.area + pdptPage, pdpt}, store{l.area + pdPages, pds})
}
