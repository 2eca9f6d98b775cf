package boot

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/fineline-vmm/fineline/memory"
)

var le = binary.LittleEndian

const (
	testRAMBytes            = 32 << 20
	testRSDP     memory.GPA = 0xe0000
)

// fakeMemory is sparse RAM that fails the test on any store outside what the memory map calls usable.
type fakeMemory struct {
	t     testing.TB
	ram   uint64
	free  []span                // RAM less what the machine occupies
	pages map[memory.GPA][]byte // nil: stores are checked and forgotten
}

func newFakeMemory(t testing.TB, ramBytes uint64) *fakeMemory {
	m := &fakeMemory{t: t, ram: ramBytes, pages: map[memory.GPA][]byte{}}
	m.free = []span{{end: ramBytes}}
	for _, r := range testOccupied {
		m.free = subtract(m.free, []span{{start: uint64(r.Base), end: uint64(r.Base) + r.SizeBytes}})
	}
	return m
}

func (m *fakeMemory) Regions() []memory.Region { return []memory.Region{{Base: 0, SizeBytes: m.ram}} }

func (m *fakeMemory) WriteAt(gpa memory.GPA, p []byte) error {
	if !contains(m.free, span{start: uint64(gpa), end: uint64(gpa) + uint64(len(p))}) {
		m.t.Errorf("store of %d bytes at %#x is outside free RAM", len(p), gpa)
		return fmt.Errorf("outside free RAM")
	}
	if m.pages == nil {
		return nil
	}
	for i := range p {
		a := gpa + memory.GPA(i)
		page := m.pages[a/memory.PageSize]
		if page == nil {
			page = make([]byte, memory.PageSize)
			m.pages[a/memory.PageSize] = page
		}
		page[a%memory.PageSize] = p[i]
	}
	return nil
}

func (m *fakeMemory) read(gpa memory.GPA, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		a := gpa + memory.GPA(i)
		if page := m.pages[a/memory.PageSize]; page != nil {
			p[i] = page[a%memory.PageSize]
		}
	}
	return p
}

func (m *fakeMemory) u32(gpa memory.GPA) uint32 { return le.Uint32(m.read(gpa, 4)) }
func (m *fakeMemory) u64(gpa memory.GPA) uint64 { return le.Uint64(m.read(gpa, 8)) }

func (m *fakeMemory) text(gpa memory.GPA) string {
	p := m.read(gpa, memory.PageSize)
	return string(p[:bytes.IndexByte(p, 0)])
}

// testOccupied is where the machine keeps tables.
var testOccupied = []memory.Region{{Base: 0xe0000, SizeBytes: 0x10000}}

// testE820 is a PC's map: RAM with the hole below 1 MiB.
func testE820(ramBytes uint64) []E820Entry {
	return []E820Entry{
		{Base: 0, SizeBytes: 0x9fc00, Type: E820RAM},
		{Base: 0x9fc00, SizeBytes: 0x60400, Type: E820Reserved},
		{Base: oneMiB, SizeBytes: ramBytes - min(ramBytes, oneMiB), Type: E820RAM},
	}
}

// load boots kernel with defaults in memory of testRAMBytes.
func load(t testing.TB, kernel, initrd []byte, cmdline string) (*fakeMemory, Entry, error) {
	return loadInto(newFakeMemory(t, testRAMBytes), kernel, initrd, cmdline)
}

func loadInto(m *fakeMemory, kernel, initrd []byte, cmdline string) (*fakeMemory, Entry, error) {
	src := Source{Kernel: bytes.NewReader(kernel), KernelSizeBytes: int64(len(kernel)), Cmdline: cmdline}
	if initrd != nil {
		src.Initrd, src.InitrdSizeBytes = bytes.NewReader(initrd), int64(len(initrd))
	}
	entry, err := Load(m, src, Params{E820: testE820(m.ram), RSDP: testRSDP, Occupied: testOccupied})
	return m, entry, err
}

// testELF is an ELF file to be built; contents follow the headers in order.
type testELF struct {
	is64     bool
	machine  uint16
	entry    uint64
	programs []testProgram
}

type testProgram struct {
	kind         uint32
	vaddr, paddr uint64
	content      []byte
	memBytes     uint64 // 0 = as content
	align        uint64
}

func (e testELF) build() []byte {
	headerBytes, entryBytes := elf32HeaderBytes, elf32ProgramBytes
	if e.is64 {
		headerBytes, entryBytes = elf64HeaderBytes, elf64ProgramBytes
	}
	h := append([]byte(elfMagic), elfClass32, elfDataLSB, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	if e.is64 {
		h[4] = elfClass64
	}
	word := func(v uint64) {
		if e.is64 {
			h = le.AppendUint64(h, v)
		} else {
			h = le.AppendUint32(h, uint32(v))
		}
	}
	h = le.AppendUint16(h, 2) // executable
	h = le.AppendUint16(h, e.machine)
	h = le.AppendUint32(h, 1)
	word(e.entry)
	word(uint64(headerBytes))
	word(0)
	h = le.AppendUint32(h, 0)
	for _, v := range []int{headerBytes, entryBytes, len(e.programs), 0, 0, 0} {
		h = le.AppendUint16(h, uint16(v))
	}
	var contents []byte
	offset := uint64(headerBytes + entryBytes*len(e.programs))
	for _, p := range e.programs {
		memBytes := max(p.memBytes, uint64(len(p.content)))
		at := offset + uint64(len(contents))
		h = le.AppendUint32(h, p.kind)
		if e.is64 {
			h = le.AppendUint32(h, 7)
		}
		for _, v := range []uint64{at, p.vaddr, p.paddr, uint64(len(p.content)), memBytes} {
			word(v)
		}
		if !e.is64 {
			h = le.AppendUint32(h, 7)
		}
		word(p.align)
		contents = append(contents, p.content...)
	}
	return append(h, contents...)
}

// note encodes one ELF note.
func note(name string, kind uint32, desc []byte, alignBytes int) []byte {
	n := le.AppendUint32(nil, uint32(len(name)))
	n = le.AppendUint32(n, uint32(len(desc)))
	n = le.AppendUint32(n, kind)
	for _, p := range [][]byte{[]byte(name), desc} {
		n = append(n, p...)
		for len(n)%alignBytes != 0 {
			n = append(n, 0)
		}
	}
	return n
}

func pvhNote32(entry uint32) testProgram {
	return testProgram{kind: elfPTNote, align: 4, content: note(xenNoteName, xenNotePhys32Entry, le.AppendUint32(nil, entry), 4)}
}

// pvhKernel is a small valid kernel at 1 MiB.
func pvhKernel() testELF {
	return testELF{is64: true, machine: elfMachineX64, entry: 0xdead, programs: []testProgram{
		{kind: elfPTLoad, vaddr: 0xffffffff80100000, paddr: oneMiB, content: []byte("code of the kernel"), memBytes: 0x3000},
		pvhNote32(oneMiB + 4),
	}}
}

// multibootWords encodes a header; addresses are the five address fields, if any.
func multibootWords(flags uint32, addresses ...uint32) []byte {
	p := le.AppendUint32(nil, mbHeaderMagic)
	p = le.AppendUint32(p, flags)
	p = le.AppendUint32(p, -(mbHeaderMagic + flags))
	for _, a := range addresses {
		p = le.AppendUint32(p, a)
	}
	return p
}

// multibootKernel is a small valid kernel at 4 MiB, as kvm-unit-tests are linked.
func multibootKernel(flags uint32) testELF {
	const base = 4 << 20
	return testELF{machine: elfMachine386, entry: base + 12, programs: []testProgram{
		{kind: elfPTLoad, vaddr: base, paddr: base, content: append(multibootWords(flags), "code"...), memBytes: 0x2000},
	}}
}

// bzImage is a small valid bzImage; change edits the file before it is returned.
func bzImage(change func(file []byte)) []byte {
	const setupSectors, kernelBytes = 2, 0x1000
	file := make([]byte, (setupSectors+1)*sectorBytes+kernelBytes)
	file[hdrSetupSectors] = setupSectors
	le.PutUint32(file[hdrSizeParagraphs:], kernelBytes/paragraphBytes)
	le.PutUint16(file[hdrBootFlag:], bootFlag)
	file[0x200], file[hdrJumpOffset] = 0xeb, 0x6a
	copy(file[hdrMagic:], linuxMagic)
	le.PutUint16(file[hdrVersion:], 0x20f)
	file[hdrLoadFlags] = loadFlagHigh
	le.PutUint32(file[hdrInitrdAddrMax:], 0x7fffffff)
	le.PutUint32(file[hdrKernelAlignment:], 0x200000)
	file[hdrRelocatable] = 1
	le.PutUint16(file[hdrXLoadFlags:], xlfKernel64)
	le.PutUint32(file[hdrCmdlineSize:], 2047)
	le.PutUint64(file[hdrPrefAddress:], 0x1000000)
	le.PutUint32(file[hdrInitSize:], 0x10000)
	copy(file[(setupSectors+1)*sectorBytes:], "decompressor")
	copy(file[(setupSectors+1)*sectorBytes+entry64Offset:], "entry64")
	if change != nil {
		change(file)
	}
	return file
}
