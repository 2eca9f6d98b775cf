package boot

import (
	"bytes"
	"testing"

	"github.com/fineline-vmm/fineline/memory"
)

func TestPVH(t *testing.T) {
	wide := pvhKernel()
	wide.programs[1].content = append(note("GNU\x00", 3, []byte("12345"), 4),
		note(xenNoteName, xenNotePhys32Entry, le.AppendUint64(nil, oneMiB+4), 4)...)
	padded := pvhKernel()
	padded.programs[1].align = 8
	padded.programs[1].content = append(note("abcdef\x00", 1, []byte("1"), 8),
		note(xenNoteName, xenNotePhys32Entry, le.AppendUint32(nil, oneMiB+4), 8)...)
	narrow := pvhKernel()
	narrow.is64, narrow.machine, narrow.programs[0].vaddr = false, elfMachine386, 0
	both := pvhKernel()
	both.programs[0].content = append(both.programs[0].content, multibootWords(0)...)

	for name, kernel := range map[string]testELF{
		"ELF64": pvhKernel(), "second note, 64-bit entry": wide, "notes padded to 8": padded, "ELF32": narrow, "also multiboot": both,
	} {
		t.Run(name, func(t *testing.T) {
			initrd := bytes.Repeat([]byte("initrd"), 1000)
			m, e, err := load(t, kernel.build(), initrd, "console=ttyS0")
			if err != nil {
				t.Fatal(err)
			}
			want := Entry{Mode: Protected32, RIP: oneMiB + 4, RBX: 0x90000, RSP: 0x94000, GDT: 0x92000, Protocol: "PVH"}
			if e != want {
				t.Errorf("entry %+v, want %+v", e, want)
			}
			if got := m.read(oneMiB, 18); string(got) != "code of the kernel" {
				t.Errorf("kernel is %q", got)
			}
			checkStartInfo(t, m, memory.GPA(e.RBX), initrd)
		})
	}
}

func checkStartInfo(t *testing.T, m *fakeMemory, info memory.GPA, initrd []byte) {
	t.Helper()
	for _, f := range []struct {
		name      string
		got, want uint64
	}{
		{"magic", uint64(m.u32(info)), 0x336ec578},
		{"version", uint64(m.u32(info + 4)), 1},
		{"flags", uint64(m.u32(info + 8)), 0},
		{"modules", uint64(m.u32(info + 12)), 1},
		{"rsdp", m.u64(info + 32), uint64(testRSDP)},
		{"memory map entries", uint64(m.u32(info + 48)), 3},
		{"reserved", uint64(m.u32(info + 52)), 0},
	} {
		if f.got != f.want {
			t.Errorf("start info: %s is %#x, want %#x", f.name, f.got, f.want)
		}
	}
	if got := m.text(memory.GPA(m.u64(info + 24))); got != "console=ttyS0" {
		t.Errorf("command line %q", got)
	}
	module := memory.GPA(m.u64(info + 16))
	at, size := memory.GPA(m.u64(module)), m.u64(module+8)
	if size != uint64(len(initrd)) || at%memory.PageSize != 0 || !bytes.Equal(m.read(at, len(initrd)), initrd) {
		t.Errorf("module of %d bytes at %#x is not the initrd", size, at)
	}
	memmap := memory.GPA(m.u64(info + 40))
	for i, e := range testE820(m.ram) {
		p := memmap + memory.GPA(24*i)
		if m.u64(p) != uint64(e.Base) || m.u64(p+8) != e.SizeBytes || m.u32(p+16) != uint32(e.Type) {
			t.Errorf("memory map entry %d differs from %+v", i, e)
		}
	}
}

func TestPVHWithoutInitrd(t *testing.T) {
	m, e, err := load(t, pvhKernel().build(), nil, "")
	if err != nil {
		t.Fatal(err)
	}
	info := memory.GPA(e.RBX)
	if m.u32(info+12) != 0 || m.u64(info+16) != 0 {
		t.Error("a module is announced")
	}
	if got := m.text(memory.GPA(m.u64(info + 24))); got != "" {
		t.Errorf("command line %q", got)
	}
}

// TestBssStaysUntouched: pages that the file does not fill must cost nothing.
func TestBssStaysUntouched(t *testing.T) {
	e := pvhKernel()
	e.programs[0].memBytes = 16 << 20
	m, _, err := load(t, e.build(), nil, "")
	if err != nil {
		t.Fatal(err)
	}
	if len(m.pages) > 8 {
		t.Errorf("%d pages were touched", len(m.pages))
	}
}

func TestMultibootELF(t *testing.T) {
	upper := multibootKernel(0)
	upper.programs[0].vaddr = 0xc0000000
	upper.entry = 0xc000000c
	for name, kernel := range map[string]testELF{
		"kvm-unit-tests": multibootKernel(0), "all known demands": multibootKernel(7), "upper half": upper,
	} {
		t.Run(name, func(t *testing.T) {
			initrd := []byte("KEY=value\n")
			m, e, err := load(t, kernel.build(), initrd, "a b")
			if err != nil {
				t.Fatal(err)
			}
			want := Entry{Mode: Protected32, RIP: 4<<20 + 12, RAX: 0x2badb002, RBX: 0x90000, RSP: 0x94000, GDT: 0x92000, Protocol: "multiboot"}
			if e != want {
				t.Errorf("entry %+v, want %+v", e, want)
			}
			checkMultibootInfo(t, m, memory.GPA(e.RBX), initrd)
		})
	}
}

func checkMultibootInfo(t *testing.T, m *fakeMemory, info memory.GPA, initrd []byte) {
	t.Helper()
	for _, f := range []struct {
		name      string
		got, want uint32
	}{
		{"flags", m.u32(info), 1<<0 | 1<<2 | 1<<3 | 1<<6 | 1<<9},
		{"mem_lower", m.u32(info + 4), 639},
		{"mem_upper", m.u32(info + 8), (testRAMBytes - oneMiB) >> 10},
		{"mods_count", m.u32(info + 20), 1},
		{"mmap_length", m.u32(info + 44), 3 * 24},
	} {
		if f.got != f.want {
			t.Errorf("information: %s is %#x, want %#x", f.name, f.got, f.want)
		}
	}
	if got := m.text(memory.GPA(m.u32(info + 16))); got != "kernel a b" {
		t.Errorf("command line %q", got)
	}
	if got := m.text(memory.GPA(m.u32(info + 64))); got != "fineline" {
		t.Errorf("loader name %q", got)
	}
	module := memory.GPA(m.u32(info + 24))
	start, end := memory.GPA(m.u32(module)), memory.GPA(m.u32(module+4))
	if start != 4<<20+0x2000 || !bytes.Equal(m.read(start, int(end-start)), initrd) {
		t.Errorf("module %#x-%#x is not the initrd right behind the kernel", start, end)
	}
	if got := m.text(memory.GPA(m.u32(module + 8))); got != "initrd" {
		t.Errorf("module name %q", got)
	}
	p := memory.GPA(m.u32(info + 48))
	for i, e := range testE820(m.ram) {
		if m.u64(p+4) != uint64(e.Base) || m.u64(p+12) != e.SizeBytes || m.u32(p+20) != uint32(e.Type) {
			t.Errorf("memory map entry %d differs from %+v", i, e)
		}
		p += memory.GPA(m.u32(p)) + 4
	}
}

func TestMultibootWithoutInitrd(t *testing.T) {
	m, e, err := load(t, multibootKernel(0).build(), nil, "")
	if err != nil {
		t.Fatal(err)
	}
	info := memory.GPA(e.RBX)
	if m.u32(info)&mbInfoModules != 0 || m.u32(info+20) != 0 {
		t.Error("a module is announced")
	}
	if got := m.text(memory.GPA(m.u32(info + 16))); got != "kernel" {
		t.Errorf("command line %q", got)
	}
}

func TestMultibootAddressFields(t *testing.T) {
	const at = 0x200000
	body := []byte("flat binary")
	// Not multibooted: 16 bytes; loaded from byte 8 on, header at byte 16.
	file := append(make([]byte, 16), multibootWords(mbFlagAddresses, at+8, at, 0, at+0x5000, at+40)...)
	file = append(file, body...)
	withEnd := append(make([]byte, 16), multibootWords(mbFlagAddresses, at+8, at, at+40+4, 0, at+40)...)
	withEnd = append(withEnd, body...)
	asELF := multibootKernel(0)
	asELF.programs[0].content = append(multibootWords(mbFlagAddresses, at, at, 0, 0, at+32), body...)

	tests := []struct {
		name    string
		file    []byte
		entry   uint64
		content string
		free    uint64 // the first address behind the kernel
	}{
		{"to the end of the file, with bss", file, at + 40, "flat binary", at + 0x5000},
		{"with a load end", withEnd, at + 40, "flat\x00", at + 0x1000},
		{"address fields win over ELF", asELF.build(), at + 32, "flat binary", at + 0x1000},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, e, err := load(t, tt.file, []byte("module"), "")
			if err != nil {
				t.Fatal(err)
			}
			if e.RIP != tt.entry || e.RAX != mbEntryMagic {
				t.Errorf("entry %+v", e)
			}
			if got := m.read(memory.GPA(tt.entry), len(tt.content)); string(got) != tt.content {
				t.Errorf("at the entry is %q, want %q", got, tt.content)
			}
			if got := m.text(memory.GPA(tt.free)); got != "module" {
				t.Errorf("behind the kernel is %q", got)
			}
		})
	}
}

func TestMultibootHeaderPlace(t *testing.T) {
	header := multibootWords(mbFlagAddresses, oneMiB, oneMiB, 0, 0, oneMiB)
	tests := []struct {
		name   string
		offset int
		found  bool
	}{
		{"start", 0, true}, {"last place", headBytes - len(header), true}, {"unaligned", 2, false},
		{"across the end", headBytes - len(header) + 4, false}, {"behind", headBytes, false},
	}
	for _, tt := range tests {
		file := append(make([]byte, tt.offset), header...)
		if _, found := findMultiboot(file[:min(len(file), headBytes)]); found != tt.found {
			t.Errorf("%s: found %v", tt.name, found)
		}
	}
	damaged := bytes.Clone(header)
	damaged[8]++
	if _, found := findMultiboot(damaged); found {
		t.Error("a header with a wrong checksum was found")
	}
}
