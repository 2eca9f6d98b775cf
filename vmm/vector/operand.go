package vector

// registers is what addresses are made of.
type registers struct {
	GPR            [16]uint64 // by their number in ModRM: RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15
	RIP            uint64
	FSBase, GSBase uint64
}

// operand is a memory operand. A register number of -1 means none.
type operand struct {
	segment     segment
	Base, Index int
	Scale       uint64
	Disp        int64 // not yet times N where it is compressed
	Disp8       bool
	Relative    bool // to the next instruction
	Address32   bool
}

// modRM reads ModRM, SIB and displacement; ok is false for a register operand.
func (r *reader) modRM(h *head) (reg int, o operand, ok bool, err error) {
	m, err := r.next()
	if err != nil {
		return 0, o, false, err
	}
	mod, rm := m>>6, int(m&7)
	reg = int(m>>3&7) | h.reg
	if mod == 3 {
		return reg, o, false, nil
	}
	o = operand{segment: h.segment, Base: rm | h.base, Index: -1, Scale: 1, Address32: h.address32}
	noBase := rm == 5 && mod == 0
	o.Relative = noBase
	if rm == 4 {
		sib, err := r.next()
		if err != nil {
			return reg, o, true, err
		}
		o.Base = int(sib&7) | h.base
		o.Index = int(sib>>3&7) | h.index
		o.Scale = 1 << (sib >> 6)
		noBase = sib&7 == 5 && mod == 0
	}
	if noBase {
		o.Base = -1
	}
	switch {
	case mod == 1:
		o.Disp8 = true
		o.Disp, err = r.displacement(1)
	case mod == 2 || noBase:
		o.Disp, err = r.displacement(4)
	}
	return reg, o, true, err
}

const noIndex = 4 // RSP can't be an index

// address is the linear address of the operand of an instruction of length bytes, whose 8-bit
// displacement counts in units of n bytes.
func (o *operand) address(regs *registers, length, n int) uint64 {
	ea := uint64(o.Disp)
	if o.Disp8 {
		ea = uint64(o.Disp * int64(n))
	}
	if o.Base >= 0 {
		ea += regs.GPR[o.Base]
	}
	if o.Index >= 0 && o.Index != noIndex {
		ea += regs.GPR[o.Index] * o.Scale
	}
	if o.Relative {
		ea += regs.RIP + uint64(length)
	}
	return o.linear(regs, ea)
}

// linear adds the segment to an effective address.
func (o *operand) linear(regs *registers, ea uint64) uint64 {
	if o.Address32 {
		ea = uint64(uint32(ea))
	}
	switch o.segment {
	case FS:
		ea += regs.FSBase
	case GS:
		ea += regs.GSBase
	}
	return ea
}
