package vector

// instruction is a decoded one. With row == nil it is not known, and only head, hasMemory, memory
// and, roughly, length mean something.
type instruction struct {
	head
	row    *row
	store  bool
	length int // bytes of code
	reg    int // the vector register
	imm    byte

	hasMemory bool
	memory    operand
}

// decode reads the instruction at the beginning of code. After ErrUnknown the memory operand is
// decoded all the same, if there is one; after ErrTruncated nothing is.
func decode(code []byte) (in instruction, err error) {
	r := reader{code: code}
	if in.head, err = r.head(); err != nil {
		return in, err
	}
	if !hasModRM(&in.head) {
		return in, ErrUnknown
	}
	if in.reg, in.memory, in.hasMemory, err = r.modRM(&in.head); err != nil {
		in.hasMemory = false
		return in, err
	}
	if in.enc != evex {
		in.reg &= 0xf
	}
	if in.row, in.store = find(&in.head); in.row != nil && (!in.hasMemory || !in.row.valid(&in.head, in.store)) {
		in.row = nil
	}
	if in.row != nil && in.row.kind == lane {
		if in.imm, err = r.next(); err != nil {
			in.row, in.hasMemory = nil, false
			return in, err
		}
	}
	in.length = r.at
	if in.row == nil {
		return in, ErrUnknown
	}
	return in, nil
}

// hasModRM says whether ModRM follows the opcode. Of the one-byte opcodes only the
// floating-point ones count: KVM's emulator does the others.
func hasModRM(h *head) bool {
	op := h.opcode
	switch {
	case h.enc == legacy && h.opmap == 0:
		return op >= 0xd8 && op <= 0xdf
	case h.opmap == 1:
		switch {
		case op >= 0x05 && op <= 0x0e && op != 0x0d,
			op >= 0x30 && op <= 0x37, op == 0x77, op >= 0x80 && op <= 0x8f,
			op >= 0xa0 && op <= 0xa2, op >= 0xa8 && op <= 0xaa, op >= 0xc8 && op <= 0xcf:
			return false
		}
	}
	return true
}

// vectorBytes is the length of the instruction's vectors.
func (in *instruction) vectorBytes() int { return 16 << in.vectorLength }

// memoryBytes is the size of the memory operand. Preconditions: the instruction is known.
func (in *instruction) memoryBytes() int {
	if in.row.memory != 0 {
		return in.row.memory
	}
	return in.vectorBytes()
}

// compression is N, the unit of an 8-bit displacement: with EVEX the size of the memory operand, for
// all moves here (Intel SDM vol. 2A, 2.7.5).
func (in *instruction) compression() int {
	if in.enc == evex {
		return in.memoryBytes()
	}
	return 1
}
