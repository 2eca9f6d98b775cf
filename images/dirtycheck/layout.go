package dirtycheck

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/fineline-vmm/fineline/memory"
)

// HeaderAt is where the guest keeps its header.
const HeaderAt memory.GPA = 0x100000

const (
	magic       = "FLDIRTY1"
	version     = 2
	headerBytes = 88
	recordBytes = 64
	lineBytes   = 64
	pageLines   = memory.PageSize / lineBytes
	maxVCPUs    = 64
	maxLines    = 1<<31 - 1
)

var (
	// ErrNotReady: there is no header (yet). The guest is not `dirty`, or it has not begun to write.
	ErrNotReady = errors.New("no header of the guest `dirty` in memory: not that guest, or it does not write yet")
	// ErrBadHeader: the header says what cannot be; if the guest is `dirty`, its header page was lost.
	ErrBadHeader = errors.New("header of the guest `dirty` is damaged")
)

// Memory is guest memory as dirtycheck needs it; *memory.Guest is one.
type Memory interface {
	ReadAt(gpa memory.GPA, p []byte) error
}

// Params are what the guest was told on its command line.
type Params struct {
	Seed         uint64     `json:"seed"`
	Base         memory.GPA `json:"base"`
	Pages        uint64     `json:"pages"`
	LinesPerPage int        `json:"lines_per_page"`
	BytesPerLine int        `json:"bytes_per_line"`
	Pattern      Pattern    `json:"pattern"`
	Table        bool       `json:"table"` // the guest keeps its table of last steps
	RatePerSec   uint64     `json:"rate_per_sec"`
	Steps        uint64     `json:"steps"` // of each vCPU; 0 = for ever
	TSCKHz       uint64     `json:"tsc_khz"`
}

// VCPU is the record of one writer.
type VCPU struct {
	Next       uint64 `json:"next"` // step begun: Done, or Done+1 while one is in progress
	Done       uint64 `json:"done"` // steps finished
	Lines      uint64 `json:"lines"`
	Mismatches uint64 `json:"mismatches"` // found by the guest itself before it wrote a line again

	tableAt memory.GPA
}

// State is what the guest says about itself.
type State struct {
	Params Params `json:"params"`
	VCPUs  []VCPU `json:"vcpus"`
}

// Steps is the number of steps done by all vCPUs.
func (s *State) Steps() uint64 {
	var sum uint64
	for _, v := range s.VCPUs {
		sum += v.Done
	}
	return sum
}

// ReadState reads the header and the records. It is cheap, and works also while the guest runs. Errors wrap
// ErrNotReady, ErrBadHeader or the error of mem.
func ReadState(mem Memory) (*State, error) {
	h := make([]byte, headerBytes)
	if err := mem.ReadAt(HeaderAt, h); err != nil {
		return nil, fmt.Errorf("reading the header: %w", err)
	}
	if string(h[:8]) != magic {
		return nil, ErrNotReady
	}
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(h[at:]) }
	u64 := func(at int) uint64 { return binary.LittleEndian.Uint64(h[at:]) }
	if u32(8) != version {
		return nil, fmt.Errorf("%w: version %d, this program knows %d", ErrBadHeader, u32(8), version)
	}
	s := &State{Params: Params{
		Seed: u64(16), Base: memory.GPA(u64(24)), Pages: u64(32),
		LinesPerPage: int(u32(40)), BytesPerLine: int(u32(44)),
		Pattern: Pattern(u32(48)), Table: u32(52) != 0,
		RatePerSec: u64(56), Steps: u64(64), TSCKHz: u64(72),
	}}
	vcpus := int(u32(12))
	if err := s.Params.validate(vcpus); err != nil {
		return nil, err
	}
	return s, s.readRecords(mem, memory.GPA(u64(80)), vcpus)
}

func (p *Params) validate(vcpus int) error {
	switch {
	case vcpus < 1 || vcpus > maxVCPUs:
		return fmt.Errorf("%w: %d vcpus", ErrBadHeader, vcpus)
	case p.LinesPerPage < 1 || p.LinesPerPage > pageLines || p.BytesPerLine < 1 || p.BytesPerLine > lineBytes:
		return fmt.Errorf("%w: %d lines a page of %d bytes", ErrBadHeader, p.LinesPerPage, p.BytesPerLine)
	case p.Pattern > Cluster:
		return fmt.Errorf("%w: pattern %d", ErrBadHeader, p.Pattern)
	case p.Pages < 1 || p.Pages > maxLines || p.allLines() > maxLines || p.allLines() < uint64(vcpus):
		return fmt.Errorf("%w: %d pages", ErrBadHeader, p.Pages)
	case p.Base%memory.PageSize != 0 || uint64(p.Base) > 1<<62:
		return fmt.Errorf("%w: base %#x", ErrBadHeader, uint64(p.Base))
	}
	return nil
}

func (p *Params) allLines() uint64 { return p.Pages * uint64(p.LinesPerPage) }

// place is the index within its page of written line k of page.
func (p *Params) place(page uint64, k int) int {
	return int((uint64(k*pageLines/p.LinesPerPage) + page) % pageLines)
}

// address of a vCPU's line.
func (p *Params) address(vcpus, vcpu int, line uint64) memory.GPA {
	all := line*uint64(vcpus) + uint64(vcpu)
	page, k := all/uint64(p.LinesPerPage), int(all%uint64(p.LinesPerPage))
	return p.Base + memory.GPA(page*memory.PageSize+uint64(p.place(page, k)*lineBytes))
}

func (s *State) readRecords(mem Memory, at memory.GPA, vcpus int) error {
	r := make([]byte, vcpus*recordBytes)
	if err := mem.ReadAt(at, r); err != nil {
		return fmt.Errorf("reading the vcpu records: %w", err)
	}
	for i := range vcpus {
		u64 := func(at int) uint64 { return binary.LittleEndian.Uint64(r[i*recordBytes+at:]) }
		v := VCPU{Next: u64(0), Done: u64(8), tableAt: memory.GPA(u64(16)), Lines: u64(24), Mismatches: u64(32)}
		n, all := uint64(vcpus), s.Params.allLines()
		if want := (all - uint64(i) + n - 1) / n; v.Lines != want {
			return fmt.Errorf("%w: vcpu %d has %d lines instead of %d", ErrBadHeader, i, v.Lines, want)
		}
		s.VCPUs = append(s.VCPUs, v)
	}
	return nil
}
