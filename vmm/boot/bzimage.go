package boot

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/fineline-vmm/fineline/memory"
)

// Offsets in the setup header, which lie at the same place in the file and in the zero page
// (Linux, Documentation/arch/x86/boot.rst, "The real-mode kernel header").
const (
	hdrStart           = 0x1f1
	hdrSetupSectors    = 0x1f1
	hdrSizeParagraphs  = 0x1f4
	hdrBootFlag        = 0x1fe
	hdrJumpOffset      = 0x201 // the header ends this far behind hdrMagic
	hdrMagic           = 0x202
	hdrVersion         = 0x206
	hdrTypeOfLoader    = 0x210
	hdrLoadFlags       = 0x211
	hdrCode32Start     = 0x214
	hdrRamdiskImage    = 0x218
	hdrRamdiskSize     = 0x21c
	hdrCmdlinePointer  = 0x228
	hdrInitrdAddrMax   = 0x22c
	hdrKernelAlignment = 0x230
	hdrRelocatable     = 0x234
	hdrXLoadFlags      = 0x236
	hdrCmdlineSize     = 0x238
	hdrPrefAddress     = 0x258
	hdrInitSize        = 0x260

	bootFlag         = 0xaa55
	linuxMagic       = "HdrS"
	version64        = 0x020c // the first protocol version with XLF_KERNEL_64
	loadFlagHigh     = 1 << 0
	xlfKernel64      = 1 << 0
	undefinedLoader  = 0xff
	entry64Offset    = 0x200
	sectorBytes      = 512
	paragraphBytes   = 16
	minHeaderEnd     = hdrInitSize + 4
	defaultSetupSize = 4 // what 0 sectors mean
)

// setupHeader is the part of the header a loader reads, widened to 64 bits.
type setupHeader struct {
	end           int // of the header in the file
	setupBytes    uint64
	kernelBytes   uint64
	version       uint16
	initrdAddrMax uint64
	alignBytes    uint64
	relocatable   bool
	xloadFlags    uint16
	cmdlineBytes  uint64
	prefAddress   uint64
	initBytes     uint64
	loadedHigh    bool
}

func isBzImage(head []byte) bool {
	return len(head) >= hdrVersion+2 &&
		binary.LittleEndian.Uint16(head[hdrBootFlag:]) == bootFlag && string(head[hdrMagic:hdrMagic+4]) == linuxMagic
}

func parseSetupHeader(head []byte) (setupHeader, error) {
	le := binary.LittleEndian
	fail := func(what string) (setupHeader, error) {
		return setupHeader{}, fmt.Errorf("%w: Linux bzImage %s", ErrFormat, what)
	}
	version := le.Uint16(head[hdrVersion:])
	end := hdrMagic + int(head[hdrJumpOffset])
	switch {
	case version < version64:
		return fail(fmt.Sprintf("of boot protocol %d.%02d: the 64-bit entry needs 2.12 (Linux 3.8) or later", version>>8, version&0xff))
	case len(head) < minHeaderEnd || len(head) < end:
		return fail(fmt.Sprintf("truncated in its setup header: %d bytes", len(head)))
	case end < minHeaderEnd:
		return fail("with a setup header too short for its version")
	}
	h := setupHeader{
		end:           end,
		setupBytes:    (setupSectors(head[hdrSetupSectors]) + 1) * sectorBytes,
		kernelBytes:   uint64(le.Uint32(head[hdrSizeParagraphs:])) * paragraphBytes,
		version:       version,
		initrdAddrMax: uint64(le.Uint32(head[hdrInitrdAddrMax:])),
		alignBytes:    uint64(le.Uint32(head[hdrKernelAlignment:])),
		relocatable:   head[hdrRelocatable] != 0,
		xloadFlags:    le.Uint16(head[hdrXLoadFlags:]),
		cmdlineBytes:  uint64(le.Uint32(head[hdrCmdlineSize:])),
		prefAddress:   le.Uint64(head[hdrPrefAddress:]),
		initBytes:     uint64(le.Uint32(head[hdrInitSize:])),
		loadedHigh:    head[hdrLoadFlags]&loadFlagHigh != 0,
	}
	switch {
	case h.xloadFlags&xlfKernel64 == 0:
		return fail("without the 64-bit entry (XLF_KERNEL_64): it is a 32-bit kernel; use an x86-64 one")
	case !h.loadedHigh:
		return fail("that asks to be loaded below 1 MiB (a zImage)")
	case bits.OnesCount64(h.alignBytes) != 1:
		return fail(fmt.Sprintf("with kernel_alignment %#x, which is no power of two", h.alignBytes))
	case h.kernelBytes <= entry64Offset:
		return fail("without a kernel behind its setup code")
	}
	return h, nil
}

func setupSectors(n byte) uint64 {
	if n == 0 {
		return defaultSetupSize
	}
	return uint64(n)
}

// loadBzImage follows the 64-bit boot protocol of boot.rst.
func (l *loader) loadBzImage() (Entry, error) {
	h, err := parseSetupHeader(l.head)
	if err != nil {
		return Entry{}, err
	}
	// The file may be longer than the header says: signed kernels have the signature behind.
	if err := l.checkInFile(h.setupBytes, h.kernelBytes, "the compressed kernel"); err != nil {
		return Entry{}, err
	}
	kernel, err := l.placeBzImage(h)
	if err != nil {
		return Entry{}, err
	}
	if err := l.placeArea(); err != nil {
		return Entry{}, err
	}
	if err := l.stream(l.src.Kernel, int64(h.setupBytes), int64(h.kernelBytes), memory.GPA(kernel.start), kernel.name); err != nil {
		return Entry{}, err
	}
	initrd, err := l.loadInitrdHigh(min(h.initrdAddrMax+1, fourGiB))
	if err != nil {
		return Entry{}, err
	}
	if err := l.writeCmdline(l.src.Cmdline, h.cmdlineBytes); err != nil {
		return Entry{}, err
	}
	if err := l.writeZeroPage(h, kernel.start, initrd); err != nil {
		return Entry{}, err
	}
	return Entry{
		Mode: Long64, RIP: kernel.start + entry64Offset, RSI: uint64(l.area + infoPage), RSP: uint64(l.area + stackTop), Protocol: "Linux 64-bit",
	}, nil
}

// placeBzImage claims init_size bytes, which cover the kernel until it reads the memory map itself. The
// preferred address comes first; a relocatable kernel also runs higher, at its alignment. Lower is no use:
// its decompressor then moves the kernel up to the preferred address all the same.
func (l *loader) placeBzImage(h setupHeader) (span, error) {
	const name = "the Linux kernel"
	sizeBytes := max(h.initBytes, h.kernelBytes)
	start := max(h.prefAddress, oneMiB)
	if h.relocatable {
		at, ok := l.room.lowest(sizeBytes, h.alignBytes, start, fourGiB)
		if !ok {
			return span{}, fmt.Errorf("%w: the Linux kernel needs %d bytes from %#x on, the largest free range there has %d; give the guest more memory",
				ErrNoRoom, sizeBytes, start, l.room.largestFree(start, fourGiB))
		}
		start = at
	}
	s, err := sized(start, sizeBytes, name)
	if err != nil {
		return span{}, err
	}
	if s.end > fourGiB {
		return span{}, fmt.Errorf("%w: %v is not below 4 GiB", ErrNoRoom, s)
	}
	return s, l.room.claimUsable(s) // a compressed kernel unpacks into it
}
