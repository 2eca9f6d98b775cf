package boot

import (
	"bytes"
	"encoding/binary"
)

// From Xen's public headers: elfnote.h and arch-x86/hvm/start_info.h.
const (
	xenNoteName           = "Xen\x00"
	xenNotePhys32Entry    = 18
	noteHeaderBytes       = 12
	maxNoteSegmentBytes   = 64 << 10
	startInfoMagic        = 0x336ec578 // "xEn3" with bit 31 of the "E"
	startInfoVersion      = 1
	pvhMemmapEntryBytes   = 24
	pvhModuleEntryBytes   = 32
	startInfoBytes        = 56
	unlimitedCmdlineBytes = ^uint64(0)
)

// findPVHEntry looks for the note through the program headers, as Xen and QEMU do: sections may be stripped.
func (l *loader) findPVHEntry(f *elfFile) (entry uint64, found bool, err error) {
	for _, p := range f.programs {
		if p.kind != elfPTNote {
			continue
		}
		notes, err := l.kernelTable(p.offset, p.fileBytes, maxNoteSegmentBytes, "the ELF note segment")
		if err != nil {
			return 0, false, err
		}
		entry, found := findPVHNote(notes, 4)
		// Notes are padded to 4 bytes even in ELF64; the padding to 8 which the generic ABI asks for is met
		// in segments that say so.
		if !found && p.align == 8 {
			entry, found = findPVHNote(notes, 8)
		}
		if found {
			return entry, true, nil
		}
	}
	return 0, false, nil
}

// findPVHNote walks notes whose names and contents are padded to alignBytes. A damaged note ends the walk.
func findPVHNote(notes []byte, alignBytes uint64) (uint64, bool) {
	le := binary.LittleEndian
	for len(notes) >= noteHeaderBytes {
		nameBytes, descBytes := uint64(le.Uint32(notes)), uint64(le.Uint32(notes[4:]))
		kind := le.Uint32(notes[8:])
		// Sums of 32-bit values in 64 bits cannot wrap.
		descStart, _ := alignUp(noteHeaderBytes+nameBytes, alignBytes)
		descEnd := descStart + descBytes
		if descEnd > uint64(len(notes)) {
			return 0, false
		}
		name, desc := notes[noteHeaderBytes:noteHeaderBytes+nameBytes], notes[descStart:descEnd]
		if kind == xenNotePhys32Entry && bytes.Equal(name, []byte(xenNoteName)) {
			switch len(desc) {
			case 4:
				return uint64(le.Uint32(desc)), true
			case 8:
				return le.Uint64(desc), true
			}
		}
		next, _ := alignUp(descEnd, alignBytes)
		notes = notes[min(next, uint64(len(notes))):]
	}
	return 0, false
}

// loadPVH follows Xen's docs/misc/pvh.pandoc: 32-bit protected mode, flat segments, EBX = start info.
func (l *loader) loadPVH(f *elfFile, entry uint64) (Entry, error) {
	segments, err := l.loadSegments(f)
	if err != nil {
		return Entry{}, err
	}
	if err := checkEntry32(entry, segments); err != nil {
		return Entry{}, err
	}
	// Linux keeps only the lower 32 bits of the module's address.
	initrd, err := l.loadInitrdHigh(fourGiB)
	if err != nil {
		return Entry{}, err
	}
	if err := l.writeCmdline(l.src.Cmdline, unlimitedCmdlineBytes); err != nil {
		return Entry{}, err
	}
	if err := l.writeStartInfo(initrd); err != nil {
		return Entry{}, err
	}
	return Entry{Mode: Protected32, RIP: entry, RBX: uint64(l.area + infoPage), RSP: uint64(l.area + stackTop), Protocol: "PVH"}, nil
}

// writeStartInfo stores struct hvm_start_info, version 1, and the two tables it points to.
func (l *loader) writeStartInfo(initrd span) error {
	le := binary.LittleEndian
	info := make([]byte, startInfoBytes)
	le.PutUint32(info[0:], startInfoMagic)
	le.PutUint32(info[4:], startInfoVersion)
	var stores []store
	if initrd.end > 0 {
		le.PutUint32(info[12:], 1)
		le.PutUint64(info[16:], uint64(l.area+pvhModules))
		module := make([]byte, pvhModuleEntryBytes)
		le.PutUint64(module[0:], initrd.start)
		le.PutUint64(module[8:], initrd.end-initrd.start)
		stores = append(stores, store{l.area + pvhModules, module})
	}
	le.PutUint64(info[24:], uint64(l.area+cmdlinePage))
	le.PutUint64(info[32:], uint64(l.p.RSDP))
	le.PutUint64(info[40:], uint64(l.area+pvhMemmap))
	le.PutUint32(info[48:], uint32(len(l.p.E820)))

	memmap := make([]byte, len(l.p.E820)*pvhMemmapEntryBytes)
	for i, e := range l.p.E820 {
		p := memmap[i*pvhMemmapEntryBytes:]
		le.PutUint64(p[0:], uint64(e.Base))
		le.PutUint64(p[8:], e.SizeBytes)
		le.PutUint32(p[16:], uint32(e.Type))
	}
	return l.store(append(stores, store{l.area + infoPage, info}, store{l.area + pvhMemmap, memmap})...)
}
