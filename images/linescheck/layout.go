package linescheck

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/fineline-vmm/fineline/memory"
)

// HeaderAt is where the guest keeps its header.
const HeaderAt memory.GPA = 0x100000

const (
	magic       = "FLLINES1"
	version     = 1
	headerBytes = 64
	recordBytes = 64
	lineBytes   = 64
	pageLines   = memory.PageSize / lineBytes
	maxVCPUs    = 8
	maxPages    = 1 << 20
)

var (
	// ErrNotReady: there is no header (yet). The guest is not `lines`, or it is not ready.
	ErrNotReady = errors.New("no header of the guest `lines` in memory: not that guest, or it is not ready")
	// ErrBadHeader: what the header, or an Options, says cannot be.
	ErrBadHeader = errors.New("options of the guest `lines` are damaged")
)

// Memory is guest memory as linescheck needs it; *memory.Guest is one.
type Memory interface {
	ReadAt(gpa memory.GPA, p []byte) error
}

// Options are what the program depends on.
type Options struct {
	Seed  uint64
	Base  memory.GPA
	Pages uint64
	VCPUs int
	Steps int // of each vCPU in a round
	Kinds Kinds
}

// State is what the guest says about itself, valid between two rounds.
type State struct {
	Options
	Rounds uint64 // finished
	VCPUs  []VCPU
}

// VCPU is the record of one vCPU.
type VCPU struct {
	Done   uint64 // steps
	Loaded uint64 // a hash of all that its steps loaded
}

// Read reads the guest's header and records. Errors wrap ErrNotReady, ErrBadHeader or the error of mem.
func Read(mem Memory) (*State, error) {
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
	s := &State{Rounds: u64(48), Options: Options{
		VCPUs: int(u32(12)), Seed: u64(16), Base: memory.GPA(u64(24)), Pages: u64(32),
		Kinds: Kinds(u32(40)), Steps: int(u32(44)),
	}}
	if err := s.validate(); err != nil {
		return nil, err
	}
	records := make([]byte, s.Options.VCPUs*recordBytes)
	if err := mem.ReadAt(memory.GPA(u64(56)), records); err != nil {
		return nil, fmt.Errorf("reading the vcpu records: %w", err)
	}
	for r := range s.Options.VCPUs {
		record := records[r*recordBytes:]
		s.VCPUs = append(s.VCPUs, VCPU{
			Done: binary.LittleEndian.Uint64(record), Loaded: binary.LittleEndian.Uint64(record[8:]),
		})
	}
	return s, nil
}

func (o *Options) validate() error {
	switch {
	case o.VCPUs < 1 || o.VCPUs > maxVCPUs:
		return fmt.Errorf("%w: %d vcpus", ErrBadHeader, o.VCPUs)
	case o.Pages < 2 || o.Pages > maxPages:
		return fmt.Errorf("%w: %d pages", ErrBadHeader, o.Pages)
	case o.Kinds == 0 || o.Kinds >= 1<<kindCount:
		return fmt.Errorf("%w: kinds %#x", ErrBadHeader, uint32(o.Kinds))
	case o.Steps < 1 || o.Steps > 1<<30:
		return fmt.Errorf("%w: %d steps", ErrBadHeader, o.Steps)
	case o.Base%memory.PageSize != 0 || uint64(o.Base) > 1<<62:
		return fmt.Errorf("%w: base %#x", ErrBadHeader, uint64(o.Base))
	}
	return nil
}
