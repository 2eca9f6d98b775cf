package boot

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/fineline-vmm/fineline/memory"
)

// TestRefusals checks that each bad kernel gets the error class and the words that help.
func TestRefusals(t *testing.T) {
	elf := func(change func(*testELF)) []byte {
		e := pvhKernel()
		change(&e)
		return e.build()
	}
	raw := func(file []byte, change func([]byte)) []byte {
		change(file)
		return file
	}
	long := strings.Repeat("x", memory.PageSize)
	tests := []struct {
		name    string
		kernel  []byte
		initrd  []byte
		cmdline string
		class   error
		says    string
	}{
		{name: "empty", kernel: nil, class: ErrFormat, says: "empty"},
		{name: "text", kernel: []byte("#!/bin/sh\necho \xc3\xa9\n"), class: ErrFormat, says: "the file is text; accepted are an ELF with a PVH note"},
		{name: "gzip", kernel: []byte{0x1f, 0x8b, 8, 0}, class: ErrFormat, says: "gzip-compressed"},
		{name: "xz", kernel: []byte("\xfd7zXZ\x00"), class: ErrFormat, says: "xz-compressed"},
		{name: "zstd", kernel: []byte("\x28\xb5\x2f\xfd"), class: ErrFormat, says: "zstd-compressed"},
		{name: "noise", kernel: bytes.Repeat([]byte{1, 2, 3}, 9000), class: ErrFormat, says: "unknown format; accepted"},

		{name: "ELF magic only", kernel: []byte(elfMagic), class: ErrFormat, says: "truncated in its header"},
		{name: "ELF64 header cut", kernel: pvhKernel().build()[:60], class: ErrFormat, says: "truncated in its header"},
		{name: "ELF program headers cut", kernel: pvhKernel().build()[:100], class: ErrFormat, says: "truncated: the ELF program header table"},
		{name: "ELF segment cut", kernel: pvhKernel().build()[:180], class: ErrFormat, says: "truncated: the ELF note segment"},
		{name: "ELF class", kernel: raw(pvhKernel().build(), func(p []byte) { p[4] = 3 }), class: ErrFormat, says: "class 3"},
		{name: "ELF big endian", kernel: raw(pvhKernel().build(), func(p []byte) { p[5] = 2 }), class: ErrFormat, says: "little endian"},
		{name: "ELF for ARM", kernel: elf(func(e *testELF) { e.machine = 183 }), class: ErrFormat, says: "machine number 183"},
		{name: "ELF without program headers", kernel: elf(func(e *testELF) { e.programs = nil }), class: ErrFormat, says: "without program headers"},
		{name: "ELF with too many", kernel: elf(func(e *testELF) { e.programs = make([]testProgram, maxPrograms+1) }), class: ErrFormat, says: "257 program headers"},
		{name: "ELF program header size", kernel: raw(pvhKernel().build(), func(p []byte) { p[54] = 8 }), class: ErrFormat, says: "of 8 bytes"},
		{name: "ELF without note", kernel: elf(func(e *testELF) { e.programs = e.programs[:1] }), class: ErrFormat, says: "neither a PVH note nor a multiboot header; accepted"},
		{name: "ELF huge notes", kernel: elf(func(e *testELF) {
			e.programs[1].content = make([]byte, maxNoteSegmentBytes+1)
		}), class: ErrFormat, says: "note segment of 65537 bytes"},
		{name: "ELF nothing to load", kernel: elf(func(e *testELF) { e.programs = e.programs[1:] }), class: ErrFormat, says: "without a segment to load"},
		{name: "ELF more in file than in memory", kernel: raw(pvhKernel().build(), func(p []byte) { le.PutUint64(p[64+40:], 1) }), class: ErrFormat, says: "only 1 in memory"},
		{name: "ELF segment beyond RAM", kernel: elf(func(e *testELF) { e.programs[0].paddr = testRAMBytes }), class: ErrNoRoom, says: "outside RAM"},
		{name: "ELF bss beyond RAM", kernel: elf(func(e *testELF) { e.programs[0].memBytes = testRAMBytes }), class: ErrNoRoom, says: "outside RAM"},
		{name: "ELF segment wraps", kernel: elf(func(e *testELF) { e.programs[0].paddr = ^uint64(0) - 8 }), class: ErrNoRoom, says: "end of the address space"},
		{name: "ELF segment on tables", kernel: elf(func(e *testELF) { e.programs[0].paddr = 0xef000 }), class: ErrNoRoom, says: "overlaps the machine's own tables (0xe0000-0xeffff)"},
		{name: "ELF segments overlap", kernel: elf(func(e *testELF) {
			e.programs = append(e.programs, testProgram{kind: elfPTLoad, paddr: oneMiB + 0x2fff, content: []byte("x")})
		}), class: ErrNoRoom, says: "kernel segment 2 (0x102fff-0x102fff) overlaps kernel segment 0"},
		{name: "PVH entry outside", kernel: elf(func(e *testELF) { e.programs[1] = pvhNote32(oneMiB + 0x3000) }), class: ErrFormat, says: "none of its segments"},
		{name: "PVH entry above 4 GiB", kernel: elf(func(e *testELF) {
			e.programs[1].content = note(xenNoteName, xenNotePhys32Entry, le.AppendUint64(nil, 1<<32), 4)
		}), class: ErrFormat, says: "above 4 GiB"},

		{name: "multiboot unknown demand", kernel: multibootKernel(1 << 3).build(), class: ErrFormat, says: "unknown features"},
		{name: "multiboot in ELF64", kernel: elf(func(e *testELF) {
			e.programs = []testProgram{{kind: elfPTLoad, paddr: oneMiB, content: multibootWords(0)}}
		}), class: ErrFormat, says: "objcopy"},
		{name: "multiboot without ELF or addresses", kernel: multibootWords(0), class: ErrFormat, says: "no load addresses"},
		{name: "multiboot header before load address", kernel: multibootWords(mbFlagAddresses, oneMiB, oneMiB+4, 0, 0, oneMiB), class: ErrFormat, says: "do not fit"},
		{name: "multiboot load address before file", kernel: multibootWords(mbFlagAddresses, oneMiB+4, oneMiB, 0, 0, oneMiB), class: ErrFormat, says: "do not fit"},
		{name: "multiboot load end", kernel: multibootWords(mbFlagAddresses, oneMiB, oneMiB, oneMiB-1, 0, oneMiB), class: ErrFormat, says: "load end"},
		{name: "multiboot bss end", kernel: multibootWords(mbFlagAddresses, oneMiB, oneMiB, oneMiB+32, oneMiB+1, oneMiB), class: ErrFormat, says: "bss end"},
		{name: "multiboot truncated", kernel: multibootWords(mbFlagAddresses, oneMiB, oneMiB, oneMiB+0x1000, 0, oneMiB), class: ErrFormat, says: "truncated"},
		{name: "multiboot entry", kernel: multibootWords(mbFlagAddresses, oneMiB, oneMiB, 0, 0, oneMiB-1), class: ErrFormat, says: "none of its segments"},
		{name: "multiboot beyond RAM", kernel: multibootWords(mbFlagAddresses, 0xfffffff0, 0xfffffff0, 0, 0, 0xfffffff0), class: ErrNoRoom, says: "outside RAM"},

		{name: "bzImage too old", kernel: bzImage(func(p []byte) { le.PutUint16(p[hdrVersion:], 0x20b) }), class: ErrFormat, says: "protocol 2.11"},
		{name: "bzImage of 32 bits", kernel: bzImage(func(p []byte) { p[hdrXLoadFlags] = 0 }), class: ErrFormat, says: "XLF_KERNEL_64"},
		{name: "zImage", kernel: bzImage(func(p []byte) { p[hdrLoadFlags] = 0 }), class: ErrFormat, says: "below 1 MiB"},
		{name: "bzImage alignment", kernel: bzImage(func(p []byte) { p[hdrKernelAlignment] = 3 }), class: ErrFormat, says: "power of two"},
		{name: "bzImage without kernel", kernel: bzImage(func(p []byte) { clear(p[hdrSizeParagraphs : hdrSizeParagraphs+4]) }), class: ErrFormat, says: "without a kernel"},
		{name: "bzImage cut in header", kernel: bzImage(nil)[:0x240], class: ErrFormat, says: "truncated in its setup header"},
		{name: "bzImage short header", kernel: bzImage(func(p []byte) { p[hdrJumpOffset] = 0x10 }), class: ErrFormat, says: "too short"},
		{name: "bzImage cut in kernel", kernel: bzImage(nil)[:0x1500], class: ErrFormat, says: "truncated: the compressed kernel"},
		{name: "bzImage needs too much", kernel: bzImage(func(p []byte) { le.PutUint32(p[hdrInitSize:], testRAMBytes) }), class: ErrNoRoom, says: "more memory"},
		{name: "bzImage preferred too high", kernel: bzImage(func(p []byte) { le.PutUint64(p[hdrPrefAddress:], ^uint64(0)) }), class: ErrNoRoom, says: "more memory"},
		{name: "bzImage fixed too high", kernel: bzImage(func(p []byte) {
			p[hdrRelocatable] = 0
			le.PutUint64(p[hdrPrefAddress:], ^uint64(0))
		}), class: ErrNoRoom, says: "address space"},
		{name: "bzImage fixed above 4 GiB", kernel: bzImage(func(p []byte) {
			p[hdrRelocatable] = 0
			le.PutUint64(p[hdrPrefAddress:], 1<<33)
		}), class: ErrNoRoom, says: "below 4 GiB"},

		{name: "initrd too large", kernel: pvhKernel().build(), initrd: make([]byte, testRAMBytes-oneMiB), class: ErrNoRoom, says: "the initrd has"},
		{name: "initrd too large for multiboot", kernel: multibootKernel(0).build(), initrd: make([]byte, testRAMBytes-4<<20), class: ErrNoRoom, says: "the initrd has"},
		{name: "initrd beyond bzImage's limit", kernel: bzImage(func(p []byte) { le.PutUint32(p[hdrInitrdAddrMax:], 2<<20-1) }), initrd: make([]byte, oneMiB+1), class: ErrNoRoom, says: "below 0x200000 has 1048576"},
		{name: "long command line", kernel: pvhKernel().build(), cmdline: long, says: "has 4096 bytes, this kernel takes 4095"},
		{name: "long command line for Linux", kernel: bzImage(nil), cmdline: long[:2048], says: "this kernel takes 2047"},
		{name: "NUL in the command line", kernel: pvhKernel().build(), cmdline: "a\x00b", says: "NUL"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, entry, err := load(t, tt.kernel, tt.initrd, tt.cmdline)
			switch {
			case err == nil:
				t.Fatalf("loaded, entry %+v", entry)
			case !strings.Contains(err.Error(), tt.says):
				t.Errorf("error %q does not say %q", err, tt.says)
			case tt.class != nil && !errors.Is(err, tt.class):
				t.Errorf("error %q is not %q", err, tt.class)
			}
		})
	}
}

// TestLinkedAnywhere: a kernel gets the place it is linked to wherever that is RAM, and the loader's pages
// make way. 0xff000 is where the usual link at 1 MiB puts the ELF header.
func TestLinkedAnywhere(t *testing.T) {
	for _, address := range []uint64{0, 0x1000, 0x7c00, 0x8f000, 0x90000, 0x99fff, 0x9fc00, 0xa0000, 0xf0000, 0xff000} {
		k := pvhKernel()
		k.programs[0].paddr = address
		k.programs[1] = pvhNote32(uint32(address) + 4)
		m, e, err := load(t, k.build(), []byte("an initrd"), "quiet")
		if err != nil {
			t.Errorf("%#x: %v", address, err)
			continue
		}
		area := span{start: e.RBX, end: e.RBX + areaBytes}
		if kernel := (span{start: address, end: address + k.programs[0].memBytes}); area.overlaps(kernel) || area.end > lowAreaEnd && area.start < oneMiB {
			t.Errorf("kernel at %v, boot information at %v", kernel, area)
		}
		if got := m.read(memory.GPA(address), len(k.programs[0].content)); !bytes.Equal(got, k.programs[0].content) {
			t.Errorf("%#x: the kernel is damaged: % x", address, got)
		}
		if got := m.text(memory.GPA(m.u64(memory.GPA(e.RBX) + 24))); got != "quiet" {
			t.Errorf("%#x: command line %q", address, got)
		}
	}
}

// TestAreaElsewhere: a kernel that takes all low memory.
func TestAreaElsewhere(t *testing.T) {
	k := pvhKernel()
	k.programs[0].paddr, k.programs[0].memBytes = 0, 0xa0000
	k.programs[1] = pvhNote32(4)
	_, e, err := load(t, k.build(), nil, "")
	if err != nil || e.RBX < oneMiB || e.RBX+areaBytes > testRAMBytes {
		t.Errorf("boot information at %#x, %v", e.RBX, err)
	}
}

func TestTooLittleRAM(t *testing.T) {
	for _, ram := range []uint64{memory.PageSize, 0x94000, oneMiB} {
		_, _, err := loadInto(newFakeMemory(t, ram), pvhKernel().build(), nil, "")
		if !errors.Is(err, ErrNoRoom) {
			t.Errorf("%#x bytes of RAM: %v", ram, err)
		}
	}
}

func TestTooLargeMemoryMap(t *testing.T) {
	kernel := pvhKernel().build()
	src := Source{Kernel: bytes.NewReader(kernel), KernelSizeBytes: int64(len(kernel))}
	_, err := Load(newFakeMemory(t, testRAMBytes), src, Params{E820: make([]E820Entry, MaxE820Entries+1)})
	if err == nil || !strings.Contains(err.Error(), "129 entries") {
		t.Errorf("got %v", err)
	}
}

func TestReaderErrors(t *testing.T) {
	kernel := pvhKernel().build()
	broken := readerAt{iotest.ErrReader(errTest)}
	tests := []struct {
		name string
		src  Source
		want error
	}{
		{"kernel shrinks", Source{Kernel: bytes.NewReader(kernel), KernelSizeBytes: int64(len(kernel)) + 1}, io.ErrUnexpectedEOF},
		{"kernel unreadable", Source{Kernel: broken, KernelSizeBytes: 100}, errTest},
		{"initrd shrinks", Source{
			Kernel: bytes.NewReader(kernel), KernelSizeBytes: int64(len(kernel)), Initrd: bytes.NewReader(nil), InitrdSizeBytes: 1,
		}, io.ErrUnexpectedEOF},
		{"initrd unreadable", Source{
			Kernel: bytes.NewReader(kernel), KernelSizeBytes: int64(len(kernel)), Initrd: broken, InitrdSizeBytes: 1,
		}, errTest},
	}
	for _, tt := range tests {
		m := newFakeMemory(t, testRAMBytes)
		if _, err := Load(m, tt.src, Params{E820: testE820(m.ram)}); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

var errTest = errors.New("disk on fire")

type readerAt struct{ io.Reader }

func (r readerAt) ReadAt(p []byte, _ int64) (int, error) { return r.Read(p) }

// TestLargeSegmentStreams crosses the copy buffer's size, where an off-by-one would lose or repeat bytes.
func TestLargeSegmentStreams(t *testing.T) {
	content := make([]byte, 2*streamBytes+17)
	for i := range content {
		content[i] = byte(i * 7 >> 3)
	}
	e := pvhKernel()
	e.programs[0].content, e.programs[0].memBytes = content, 0
	m, _, err := load(t, e.build(), nil, "")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(m.read(oneMiB, len(content)), content) {
		t.Error("the segment's bytes differ")
	}
}
