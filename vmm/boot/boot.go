package boot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/fineline-vmm/fineline/memory"
)

// ErrFormat is wrapped by errors about the kernel file itself: another kernel is needed.
var ErrFormat = errors.New("not a bootable kernel")

// ErrNoRoom is wrapped by errors about placement: the guest needs more memory, or the kernel another link address.
var ErrNoRoom = errors.New("does not fit in guest memory")

const accepted = "accepted are an ELF with a PVH note (XEN_ELFNOTE_PHYS32_ENTRY), " +
	"a Linux bzImage with the 64-bit entry, and multiboot version 1"

// Memory is what the loader needs of guest memory; *memory.Guest has it.
type Memory interface {
	// WriteAt copies p to gpa, or fails without effect beyond RAM.
	WriteAt(gpa memory.GPA, p []byte) error
	// Regions returns the RAM, sorted and not overlapping.
	Regions() []memory.Region
}

// Source is what to boot. The caller owns and closes the readers; Load reads them only until it returns.
type Source struct {
	Kernel          io.ReaderAt
	KernelSizeBytes int64
	Initrd          io.ReaderAt // nil = none
	InitrdSizeBytes int64
	Cmdline         string // without the terminating NUL
}

// Params is what the machine tells the kernel.
type Params struct {
	E820 []E820Entry // at most MaxE820Entries, handed to the guest in this order
	RSDP memory.GPA  // the ACPI root pointer, 0 = none
	// Occupied is RAM that the machine has filled already, with ACPI tables for instance.
	Occupied []memory.Region
}

// Entry is the state in which the first vCPU enters the kernel. Registers that are not listed are zero,
// except RFLAGS, of which only the fixed bit 1 is set. Segments and control registers follow from Mode.
type Entry struct {
	Mode     Mode
	RIP      uint64
	RAX      uint64
	RBX      uint64
	RSI      uint64
	RSP      uint64     // top of a page of the loader; protocols promise no stack, small kernels use one
	CR3      memory.GPA // identity map of the first 4 GiB; 0 in Protected32
	GDT      memory.GPA // GDTSizeBytes of descriptors, the ones of Mode.Segments
	Protocol string     // for people: "PVH", "Linux 64-bit", "multiboot"
}

// Load detects the kernel's format, writes kernel, initrd and boot information to mem, which must read
// zero, and returns the entry state. Errors wrap ErrFormat, ErrNoRoom, or what mem and the readers return.
func Load(mem Memory, src Source, p Params) (Entry, error) {
	l, err := newLoader(mem, src, p)
	if err != nil {
		return Entry{}, err
	}
	entry, err := l.loadKernel()
	if err != nil {
		return Entry{}, err
	}
	if err := l.writeCPUTables(&entry); err != nil {
		return Entry{}, err
	}
	return entry, nil
}

// loader is one call of Load.
type loader struct {
	mem  Memory
	src  Source
	p    Params
	room *room
	area memory.GPA // the loader's own pages, see layout.go; valid once the kernel has its place
	head []byte     // the first headBytes of the kernel, or all of it
	buf  []byte     // of streamBytes, what tables and contents pass through
}

// headBytes covers the ELF header, the Linux setup header and the 8 KiB in which a multiboot header may be.
const headBytes = 8192

func newLoader(mem Memory, src Source, p Params) (*loader, error) {
	if src.Kernel == nil || src.KernelSizeBytes <= 0 {
		return nil, fmt.Errorf("%w: the kernel file is empty; %s", ErrFormat, accepted)
	}
	if len(p.E820) > MaxE820Entries {
		return nil, fmt.Errorf("memory map of %d entries: the boot protocols carry %d", len(p.E820), MaxE820Entries)
	}
	if strings.IndexByte(src.Cmdline, 0) >= 0 {
		return nil, errors.New("the kernel command line contains a NUL byte")
	}
	l := &loader{mem: mem, src: src, p: p, room: newRoom(mem.Regions(), p.E820), buf: make([]byte, streamBytes)}
	for _, r := range p.Occupied {
		if err := l.room.claim(E820Entry{Base: r.Base, SizeBytes: r.SizeBytes}.span("the machine's own tables")); err != nil {
			return nil, err
		}
	}
	l.head = make([]byte, min(src.KernelSizeBytes, headBytes))
	if err := l.readKernel(l.head, 0); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *loader) loadKernel() (Entry, error) {
	mb, isMultiboot := findMultiboot(l.head)
	switch {
	case bytes.HasPrefix(l.head, []byte(elfMagic)):
		return l.loadELF(mb, isMultiboot)
	case isBzImage(l.head):
		return l.loadBzImage()
	case isMultiboot && mb.hasAddresses():
		return l.loadMultibootRaw(mb)
	case isMultiboot:
		return Entry{}, fmt.Errorf("%w: it has a multiboot header but is no ELF, and the header gives no load addresses (flag bit 16)", ErrFormat)
	default:
		return Entry{}, fmt.Errorf("%w: the file is %s; %s", ErrFormat, describe(l.head), accepted)
	}
}

// loadELF chooses between the protocols an ELF file can carry.
func (l *loader) loadELF(mb multibootHeader, isMultiboot bool) (Entry, error) {
	f, err := l.parseELF()
	if err != nil {
		return Entry{}, err
	}
	pvhEntry, isPVH, err := l.findPVHEntry(f)
	switch {
	case err != nil:
		return Entry{}, err
	case isPVH:
		return l.loadPVH(f, pvhEntry)
	case isMultiboot && mb.hasAddresses():
		return l.loadMultibootRaw(mb)
	case isMultiboot && f.is64:
		return Entry{}, fmt.Errorf("%w: multiboot version 1 loads 32-bit ELF files and this is a 64-bit one; "+
			"convert it with objcopy -O elf32-i386, or give it a PVH note", ErrFormat)
	case isMultiboot:
		return l.loadMultibootELF(f, mb)
	default:
		return Entry{}, fmt.Errorf("%w: an ELF file with neither a PVH note nor a multiboot header; %s", ErrFormat, accepted)
	}
}

// describe names what people most often give by mistake.
func describe(head []byte) string {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return "gzip-compressed (decompress it first)"
	case bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return "xz-compressed (decompress it first)"
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return "zstd-compressed (decompress it first)"
	case isText(head):
		return "text"
	default:
		return "of an unknown format"
	}
}

// isText accepts any UTF-8 or Latin-1 text: no control characters except white space.
func isText(head []byte) bool {
	for _, c := range head {
		if c == 0x7f || c < 0x20 && c != '\n' && c != '\r' && c != '\t' && c != '\f' && c != 0x1b {
			return false
		}
	}
	return true
}
