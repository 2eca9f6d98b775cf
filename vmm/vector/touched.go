package vector

import "encoding/binary"

// extent is a range of linear addresses.
type extent struct {
	va    uint64
	bytes int
}

// Largest memory operands, in bytes.
const (
	maxVectorBytes = 64
	fxsaveBytes    = 512
	maxXSaveBytes  = 11008 // with the tiles of AMX
	maxImmediate   = 4     // that may follow what was decoded of an unknown instruction
)

// touched returns ranges that hold the memory operand: of an unknown instruction more than it
// touches, since neither its size nor the unit of its displacement is known.
func (in *instruction) touched(regs *registers, img *image) (all []extent) {
	if !in.hasMemory {
		return nil
	}
	if in.row != nil {
		return []extent{{in.memory.address(regs, in.length, in.compression()), in.memoryBytes()}}
	}
	if in.gathers() {
		return in.elements(regs, img)
	}
	size := maxVectorBytes
	if in.enc == legacy && in.opmap == 1 {
		switch sub := in.reg & 7; {
		case in.opcode == 0xae && sub <= 1: // fxsave, fxrstor
			size = fxsaveBytes
		case in.opcode == 0xae && sub >= 4, in.opcode == 0xc7 && sub >= 3 && sub <= 5: // xsave and its kind
			size = maxXSaveBytes
		}
	}
	if in.enc == legacy && in.opmap == 0 { // fsave, frstor: up to 108 bytes
		size = 2 * maxVectorBytes
	}
	if in.memory.Relative {
		size += maxImmediate
	}
	most := 1
	if in.enc == evex && in.memory.Disp8 {
		most = maxVectorBytes
	}
	for n := 1; n <= most; n *= 2 {
		all = append(all, extent{in.memory.address(regs, in.length, n), size})
	}
	return all
}

// gathers says whether the index is a vector (VSIB): vgather and vscatter.
func (in *instruction) gathers() bool {
	gather := in.opcode >= 0x90 && in.opcode <= 0x93
	scatter := in.opcode >= 0xa0 && in.opcode <= 0xa3 && in.enc == evex
	valid := in.enc != legacy && in.vectorBytes() <= maxVectorBytes && in.memory.Index >= 0
	return valid && in.opmap == 2 && in.prefix == 0x66 && (gather || scatter)
}

// elements returns all elements of a gather or scatter, masked or not.
func (in *instruction) elements(regs *registers, img *image) (all []extent) {
	data, index := 4, 4
	if in.w {
		data = 8
	}
	if in.opcode&1 != 0 {
		index = 8
	}
	unit, register := 1, in.memory.Index
	if in.enc == evex {
		unit, register = data, register|in.vvvv&0x10
	}
	values := img.vector(register)
	o := in.memory
	o.Index = -1
	o.segment, o.Address32 = NoSegment, false
	base := o.address(regs, in.length, unit)
	for i := range in.vectorBytes() / max(data, index) {
		var v int64
		if index == 8 {
			v = int64(binary.LittleEndian.Uint64(values[8*i:]))
		} else {
			v = int64(int32(binary.LittleEndian.Uint32(values[4*i:])))
		}
		all = append(all, extent{in.memory.linear(regs, base+uint64(v)*in.memory.Scale), data})
	}
	return all
}
