package boot

import (
	"encoding/binary"
	"fmt"

	"github.com/fineline-vmm/fineline/memory"
)

const elfMagic = "\x7fELF"

// The few numbers of the ELF specification a loader needs.
const (
	elfClass32    = 1
	elfClass64    = 2
	elfDataLSB    = 1
	elfMachine386 = 3
	elfMachineX64 = 62
	elfPTLoad     = 1
	elfPTNote     = 4

	elf32HeaderBytes  = 52
	elf64HeaderBytes  = 64
	elf32ProgramBytes = 32
	elf64ProgramBytes = 56

	// maxPrograms is far above any kernel (Linux has 5) and far below what would cost anything.
	maxPrograms = 256
)

// elfFile is the part of an ELF file that matters here, widened to 64 bits.
type elfFile struct {
	is64     bool
	entry    uint64
	programs []elfProgram
}

// elfProgram is one program header.
type elfProgram struct {
	kind      uint32
	offset    uint64
	vaddr     uint64
	paddr     uint64
	fileBytes uint64
	memBytes  uint64
	align     uint64
}

func (l *loader) parseELF() (*elfFile, error) {
	f, table, err := l.parseELFHeader()
	if err != nil {
		return nil, err
	}
	raw, err := l.kernelTable(table.offset, table.count*table.entryBytes, maxPrograms*elf64ProgramBytes, "the ELF program header table")
	if err != nil {
		return nil, err
	}
	for ; len(raw) > 0; raw = raw[table.entryBytes:] {
		f.programs = append(f.programs, parseProgram(raw, f.is64))
	}
	return f, nil
}

type programTable struct{ offset, entryBytes, count uint64 }

func (l *loader) parseELFHeader() (*elfFile, programTable, error) {
	fail := func(format string, args ...any) (*elfFile, programTable, error) {
		return nil, programTable{}, fmt.Errorf("%w: ELF file, "+format, append([]any{ErrFormat}, args...)...)
	}
	h, le := l.head, binary.LittleEndian
	if len(h) < elf32HeaderBytes {
		return fail("truncated in its header: %d bytes", len(h))
	}
	is64 := h[4] == elfClass64
	switch {
	case h[4] != elfClass32 && !is64:
		return fail("unknown class %d", h[4])
	case h[5] != elfDataLSB:
		return fail("not little endian: it is not for x86")
	case is64 && len(h) < elf64HeaderBytes:
		return fail("truncated in its header: %d bytes", len(h))
	}
	if machine := le.Uint16(h[18:]); machine != elfMachine386 && machine != elfMachineX64 {
		return fail("for machine number %d: an x86 kernel (3 or 62) is needed", machine)
	}

	f := &elfFile{is64: is64}
	var t programTable
	wantEntryBytes := uint64(elf32ProgramBytes)
	if is64 {
		wantEntryBytes = elf64ProgramBytes
		f.entry = le.Uint64(h[24:])
		t = programTable{le.Uint64(h[32:]), uint64(le.Uint16(h[54:])), uint64(le.Uint16(h[56:]))}
	} else {
		f.entry = uint64(le.Uint32(h[24:]))
		t = programTable{uint64(le.Uint32(h[28:])), uint64(le.Uint16(h[42:])), uint64(le.Uint16(h[44:]))}
	}
	switch {
	case t.count == 0:
		return fail("without program headers: an object file or library, not a linked kernel")
	case t.count > maxPrograms:
		return fail("with %d program headers, at most %d are read", t.count, maxPrograms)
	case t.entryBytes != wantEntryBytes:
		return fail("with program headers of %d bytes instead of %d", t.entryBytes, wantEntryBytes)
	}
	return f, t, nil
}

func parseProgram(p []byte, is64 bool) elfProgram {
	le := binary.LittleEndian
	if is64 {
		return elfProgram{
			kind: le.Uint32(p), offset: le.Uint64(p[8:]), vaddr: le.Uint64(p[16:]), paddr: le.Uint64(p[24:]),
			fileBytes: le.Uint64(p[32:]), memBytes: le.Uint64(p[40:]), align: le.Uint64(p[48:]),
		}
	}
	u32 := func(off int) uint64 { return uint64(le.Uint32(p[off:])) }
	return elfProgram{
		kind: le.Uint32(p), offset: u32(4), vaddr: u32(8), paddr: u32(12),
		fileBytes: u32(16), memBytes: u32(20), align: u32(28),
	}
}

// loadSegments claims all segments and the area, then copies them to their physical addresses, so that nothing is
// written when one of them cannot be placed.
func (l *loader) loadSegments(f *elfFile) ([]span, error) {
	var segments []span
	for i, p := range f.programs {
		if !l.needed(f, p) {
			continue
		}
		s, err := l.claimSegment(p, fmt.Sprintf("kernel segment %d", i))
		if err != nil {
			return nil, err
		}
		segments = append(segments, s)
	}
	if len(segments) == 0 {
		return nil, fmt.Errorf("%w: ELF file without a segment to load", ErrFormat)
	}
	if err := l.placeArea(); err != nil {
		return nil, err
	}
	for i, p := range f.programs {
		if !l.needed(f, p) {
			continue
		}
		name := fmt.Sprintf("kernel segment %d", i)
		if err := l.stream(l.src.Kernel, int64(p.offset), int64(p.fileBytes), memory.GPA(p.paddr), name); err != nil {
			return nil, err
		}
	}
	return segments, nil
}

// needed tells which programs are loaded. An empty segment takes no place; linkers emit them. Notes that lie
// where there is no RAM are for loaders only: ld puts them at its default address, 128 MiB, in kernels that
// are linked by -Ttext alone.
func (l *loader) needed(f *elfFile, p elfProgram) bool {
	if p.kind != elfPTLoad || p.memBytes == 0 {
		return false
	}
	s, err := sized(p.paddr, p.memBytes, "")
	return err != nil || contains(l.room.ram, s) || !f.isNotes(p)
}

// isNotes reports whether p holds nothing but a note segment.
func (f *elfFile) isNotes(p elfProgram) bool {
	for _, n := range f.programs {
		if n.kind == elfPTNote && n.offset == p.offset && n.fileBytes == p.fileBytes && n.memBytes == p.memBytes {
			return true
		}
	}
	return false
}

func (l *loader) claimSegment(p elfProgram, name string) (span, error) {
	if p.fileBytes > p.memBytes {
		return span{}, fmt.Errorf("%w: %s has %d bytes in the file but only %d in memory", ErrFormat, name, p.fileBytes, p.memBytes)
	}
	if err := l.checkInFile(p.offset, p.fileBytes, name); err != nil {
		return span{}, err
	}
	s, err := sized(p.paddr, p.memBytes, name)
	if err != nil {
		return span{}, err
	}
	return s, l.room.claim(s)
}

// checkEntry32 refuses an entry that a 32-bit protected mode vCPU could not reach or that holds no code.
func checkEntry32(entry uint64, segments []span) error {
	if entry >= fourGiB {
		return fmt.Errorf("%w: its entry %#x is above 4 GiB, where 32-bit code cannot be", ErrFormat, entry)
	}
	if !contains(segments, span{start: entry, end: entry + 1}) {
		return fmt.Errorf("%w: its entry %#x is in none of its segments", ErrFormat, entry)
	}
	return nil
}
