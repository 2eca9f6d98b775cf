package boot

import (
	"bytes"
	"testing"

	"github.com/fineline-vmm/fineline/memory"
)

func TestBzImage(t *testing.T) {
	initrd := bytes.Repeat([]byte("cpio"), 5000)
	signed := append(bzImage(nil), "a signature"...)
	m, e, err := load(t, signed, initrd, "quiet")
	if err != nil {
		t.Fatal(err)
	}
	want := Entry{Mode: Long64, RIP: 0x1000200, RSI: 0x90000, RSP: 0x94000, CR3: 0x94000, GDT: 0x92000, Protocol: "Linux 64-bit"}
	if e != want {
		t.Errorf("entry %+v, want %+v", e, want)
	}
	if got := m.read(memory.GPA(e.RIP), 7); string(got) != "entry64" {
		t.Errorf("at the entry is %q", got)
	}
	if got := m.read(0x1001000, 11); !bytes.Equal(got, make([]byte, 11)) {
		t.Errorf("the signature was loaded: %q", got)
	}
	checkZeroPage(t, m, signed, initrd)
}

func checkZeroPage(t *testing.T, m *fakeMemory, kernel, initrd []byte) {
	t.Helper()
	const zp = memory.GPA(0x90000)
	if !bytes.Equal(m.read(zp+hdrStart, hdrTypeOfLoader-hdrStart), kernel[hdrStart:hdrTypeOfLoader]) {
		t.Error("the setup header is not the file's")
	}
	ramdisk := memory.GPA(m.u32(zp + 0x218))
	for _, f := range []struct {
		name      string
		got, want uint64
	}{
		{"sentinel", uint64(m.read(zp+0x1ef, 1)[0]), 0},
		{"type_of_loader", uint64(m.read(zp+0x210, 1)[0]), 0xff},
		{"code32_start", uint64(m.u32(zp + 0x214)), 0x1000000},
		{"ramdisk_size", uint64(m.u32(zp + 0x21c)), uint64(len(initrd))},
		{"ext_ramdisk", m.u64(zp + 0xc0), 0},
		{"acpi_rsdp_addr", m.u64(zp + 0x70), uint64(testRSDP)},
		{"init_size", uint64(m.u32(zp + 0x260)), 0x10000},
		{"beyond the header", uint64(m.u32(zp + 0x26c)), 0},
		{"e820_entries", uint64(m.read(zp+0x1e8, 1)[0]), 3},
	} {
		if f.got != f.want {
			t.Errorf("zero page: %s is %#x, want %#x", f.name, f.got, f.want)
		}
	}
	if got := m.text(memory.GPA(m.u32(zp + 0x228))); got != "quiet" {
		t.Errorf("command line %q", got)
	}
	if !bytes.Equal(m.read(ramdisk, len(initrd)), initrd) {
		t.Errorf("ramdisk at %#x is not the initrd", ramdisk)
	}
	for i, e := range testE820(m.ram) {
		p := zp + 0x2d0 + memory.GPA(20*i)
		if m.u64(p) != uint64(e.Base) || m.u64(p+8) != e.SizeBytes || m.u32(p+16) != uint32(e.Type) {
			t.Errorf("e820 entry %d differs from %+v", i, e)
		}
	}
}

func TestBzImagePlaces(t *testing.T) {
	hole := func(base memory.GPA) []E820Entry {
		return append(testE820(testRAMBytes), E820Entry{Base: base, SizeBytes: memory.PageSize, Type: E820Reserved})
	}
	fixed := func(p []byte) { p[hdrRelocatable] = 0 }
	tests := []struct {
		name   string
		e820   []E820Entry
		change func([]byte)
		rip    uint64 // 0 = refused
	}{
		{"preferred", testE820(testRAMBytes), nil, 0x1000200},
		{"preferred, fixed", testE820(testRAMBytes), fixed, 0x1000200},
		{"moved up to its alignment", hole(0x1005000), nil, 0x1200200},
		{"fixed does not move", hole(0x1005000), fixed, 0},
		{"a hole behind init_size does not matter", hole(0x1010000), nil, 0x1000200},
		{"preferred below 1 MiB", testE820(testRAMBytes), func(p []byte) { le.PutUint64(p[hdrPrefAddress:], 0) }, 0x200200},
		{"4 sectors when it says 0", testE820(testRAMBytes), func(p []byte) {
			p[hdrSetupSectors] = 0
			le.PutUint32(p[hdrSizeParagraphs:], 0x60)
		}, 0x1000200},
	}
	for _, tt := range tests {
		kernel := bzImage(tt.change)
		src := Source{Kernel: bytes.NewReader(kernel), KernelSizeBytes: int64(len(kernel))}
		e, err := Load(newFakeMemory(t, testRAMBytes), src, Params{E820: tt.e820})
		if e.RIP != tt.rip || (err == nil) != (tt.rip != 0) {
			t.Errorf("%s: entry %#x, error %v", tt.name, e.RIP, err)
		}
	}
}

func TestDescriptors(t *testing.T) {
	tests := []struct {
		mode             Mode
		code, data, task uint64
	}{
		{Protected32, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00008b0000000067},
		{Long64, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00008b0000000067},
	}
	for _, tt := range tests {
		code, data, task := tt.mode.Segments()
		if code.descriptor() != tt.code || data.descriptor() != tt.data || task.descriptor() != tt.task {
			t.Errorf("%v: %#016x %#016x %#016x", tt.mode, code.descriptor(), data.descriptor(), task.descriptor())
		}
	}
	based := Segment{Base: 0x12345678, LimitBytes: 0xabcde, Type: 3, CodeOrData: true}
	if got := based.descriptor(); got != 0x120a93345678bcde {
		t.Errorf("a base and a limit encode as %#016x", got)
	}
}

func TestGDTAndPageTables(t *testing.T) {
	m, e, err := load(t, bzImage(nil), nil, "")
	if err != nil {
		t.Fatal(err)
	}
	for selector, want := range map[memory.GPA]uint64{
		0: 0, 8: 0, CodeSelector: 0x00af9b000000ffff, DataSelector: 0x00cf93000000ffff, TaskSelector: 0x00008b0000000067, TaskSelector + 8: 0,
	} {
		if got := m.u64(e.GDT + selector); got != want {
			t.Errorf("GDT at %#x: %#016x, want %#016x", selector, got, want)
		}
	}
	for _, address := range []uint64{0, 0x90000, 0x1fffff, 0x200000, 0x1000200, 0x3fffffff, 0x40000000, 0xfec00000, fourGiB - 1} {
		if got, ok := walk(m, e.CR3, address); !ok || got != address {
			t.Errorf("%#x maps to %#x, %v", address, got, ok)
		}
	}
	for _, address := range []uint64{fourGiB, 1 << 39} {
		if got, ok := walk(m, e.CR3, address); ok {
			t.Errorf("%#x maps to %#x", address, got)
		}
	}
	if cr0, cr4, efer := e.Mode.ControlRegisters(); cr0 != 0x80000011 || cr4 != 0x20 || efer != 0x500 {
		t.Errorf("64-bit mode: CR0 %#x, CR4 %#x, EFER %#x", cr0, cr4, efer)
	}
	if cr0, cr4, efer := Protected32.ControlRegisters(); cr0 != 0x11 || cr4 != 0 || efer != 0 {
		t.Errorf("protected mode: CR0 %#x, CR4 %#x, EFER %#x", cr0, cr4, efer)
	}
}

// walk translates as the processor does, for pages of 2 MiB.
func walk(m *fakeMemory, table memory.GPA, address uint64) (uint64, bool) {
	const addressBits = 0x000ffffffffff000
	for _, shift := range []uint{39, 30, 21} {
		entry := m.u64(table + memory.GPA(address>>shift&0x1ff*8))
		switch {
		case entry&3 != 3:
			return 0, false
		case entry&pteLarge != 0:
			return entry&addressBits | address&(largePageBytes-1), shift == 21
		}
		table = memory.GPA(entry & addressBits)
	}
	return 0, false
}
