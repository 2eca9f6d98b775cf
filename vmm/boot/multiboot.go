package boot

import (
	"encoding/binary"
	"fmt"

	"github.com/fineline-vmm/fineline/memory"
)

// From the Multiboot Specification 0.6.96, sections 3.1 (header) and 3.3 (information).
const (
	mbHeaderMagic = 0x1badb002
	mbEntryMagic  = 0x2badb002

	mbFlagAddresses = 1 << 16
	// Bits 0 to 15 are demands that a loader must refuse when it does not know them. Known: modules on page
	// boundaries (always so here), memory information (always given), video mode (see doc.go).
	mbKnownDemands = 1<<0 | 1<<1 | 1<<2
	mbDemands      = 0xffff

	mbInfoMemory     = 1 << 0
	mbInfoCmdline    = 1 << 2
	mbInfoModules    = 1 << 3
	mbInfoMemmap     = 1 << 6
	mbInfoLoaderName = 1 << 9

	mbInfoBytes        = 116
	mbMemmapEntryBytes = 24
	mbModuleEntryBytes = 16

	// The first word of a multiboot command line is the program's name, as GRUB and QEMU pass it and as
	// kvm-unit-tests and others take it off. Load does not know the file's name.
	mbProgramName = "kernel"
)

// multibootHeader is the header as found in the file.
type multibootHeader struct {
	fileOffset uint64
	flags      uint32
	// Valid if hasAddresses: physical addresses of the header itself, the start and end of what to load
	// (0 = to the end of the file), the end of bss (0 = none), and the entry.
	header, load, loadEnd, bssEnd, entry uint64
}

func (h multibootHeader) hasAddresses() bool { return h.flags&mbFlagAddresses != 0 }

// findMultiboot looks at every fourth byte of the first 8 KiB, in which the header must lie wholly.
func findMultiboot(head []byte) (multibootHeader, bool) {
	le := binary.LittleEndian
	for off := 0; off+12 <= len(head); off += 4 {
		flags := le.Uint32(head[off+4:])
		if le.Uint32(head[off:]) != mbHeaderMagic || le.Uint32(head[off+8:])+flags+mbHeaderMagic != 0 {
			continue
		}
		h := multibootHeader{fileOffset: uint64(off), flags: flags}
		if !h.hasAddresses() {
			return h, true
		}
		if off+32 > len(head) {
			continue
		}
		for i, field := range []*uint64{&h.header, &h.load, &h.loadEnd, &h.bssEnd, &h.entry} {
			*field = uint64(le.Uint32(head[off+12+4*i:]))
		}
		return h, true
	}
	return multibootHeader{}, false
}

func (h multibootHeader) checkDemands() error {
	if unknown := h.flags & mbDemands &^ mbKnownDemands; unknown != 0 {
		return fmt.Errorf("%w: its multiboot header demands unknown features (flags %#x)", ErrFormat, unknown)
	}
	return nil
}

// loadMultibootELF loads by the ELF program headers.
func (l *loader) loadMultibootELF(f *elfFile, h multibootHeader) (Entry, error) {
	if err := h.checkDemands(); err != nil {
		return Entry{}, err
	}
	segments, err := l.loadSegments(f)
	if err != nil {
		return Entry{}, err
	}
	return l.finishMultiboot(physicalEntry(f), segments)
}

// physicalEntry translates the ELF entry, a virtual address, for kernels linked to the upper half.
func physicalEntry(f *elfFile) uint64 {
	for _, p := range f.programs {
		if p.kind == elfPTLoad && f.entry >= p.vaddr && f.entry-p.vaddr < p.memBytes {
			return f.entry - p.vaddr + p.paddr
		}
	}
	return f.entry
}

// loadMultibootRaw loads by the header's address fields, whatever the file is otherwise.
func (l *loader) loadMultibootRaw(h multibootHeader) (Entry, error) {
	if err := h.checkDemands(); err != nil {
		return Entry{}, err
	}
	image, fileOffset, fileBytes, err := h.image(uint64(l.src.KernelSizeBytes))
	if err != nil {
		return Entry{}, err
	}
	if err := l.checkInFile(fileOffset, fileBytes, image.name); err != nil {
		return Entry{}, err
	}
	if err := l.room.claim(image); err != nil {
		return Entry{}, err
	}
	if err := l.placeArea(); err != nil {
		return Entry{}, err
	}
	if err := l.stream(l.src.Kernel, int64(fileOffset), int64(fileBytes), memory.GPA(image.start), image.name); err != nil {
		return Entry{}, err
	}
	return l.finishMultiboot(h.entry, []span{image})
}

// image computes where the address fields put the kernel (with its bss) and which part of the file it is.
func (h multibootHeader) image(kernelBytes uint64) (image span, fileOffset, fileBytes uint64, err error) {
	fail := func(what string) (span, uint64, uint64, error) {
		return span{}, 0, 0, fmt.Errorf("%w: multiboot address fields: %s", ErrFormat, what)
	}
	// The header is as far into the loaded part as its address is from the load address.
	if h.header < h.load || h.header-h.load > h.fileOffset {
		return fail(fmt.Sprintf("load address %#x and header address %#x do not fit the header's place in the file (%#x)", h.load, h.header, h.fileOffset))
	}
	fileOffset = h.fileOffset - (h.header - h.load)
	loadEnd := h.loadEnd
	if loadEnd == 0 {
		loadEnd = h.load + (kernelBytes - fileOffset)
	}
	if loadEnd <= h.load {
		return fail(fmt.Sprintf("load end %#x is not above the load address %#x", loadEnd, h.load))
	}
	if h.bssEnd != 0 && h.bssEnd < loadEnd {
		return fail(fmt.Sprintf("bss end %#x is below the load end %#x", h.bssEnd, loadEnd))
	}
	return span{h.load, max(loadEnd, h.bssEnd), "the multiboot kernel"}, fileOffset, loadEnd - h.load, nil
}

// finishMultiboot places the initrd as the one module and writes the information structure.
func (l *loader) finishMultiboot(entry uint64, segments []span) (Entry, error) {
	if err := checkEntry32(entry, segments); err != nil {
		return Entry{}, err
	}
	// Right behind the kernel, where other loaders put modules: small kernels map little more than themselves.
	kernelEnd := uint64(oneMiB)
	for _, s := range segments {
		kernelEnd = max(kernelEnd, s.end)
	}
	initrd, err := l.loadInitrd(fourGiB, func(sizeBytes uint64) (uint64, bool) {
		return l.room.lowest(sizeBytes, memory.PageSize, kernelEnd, fourGiB)
	})
	if err != nil {
		return Entry{}, err
	}
	cmdline := mbProgramName
	if l.src.Cmdline != "" {
		cmdline += " " + l.src.Cmdline
	}
	if err := l.writeCmdline(cmdline, maxCmdlineBytes); err != nil {
		return Entry{}, err
	}
	if err := l.writeMultibootInfo(initrd); err != nil {
		return Entry{}, err
	}
	return Entry{
		Mode: Protected32, RIP: entry, RAX: mbEntryMagic, RBX: uint64(l.area + infoPage), RSP: uint64(l.area + stackTop), Protocol: "multiboot",
	}, nil
}
