package vector

// kind is how the bytes of memory and those of the register correspond.
type kind uint8

const (
	whole     kind = iota // all of the vector
	scalar                // the first bytes; a load sets the others to zero
	lowHalf               // bytes 0 to 7; a load takes 8 to 15 from a second register
	highHalf              // bytes 8 to 15; a load takes 0 to 7 from a second register
	broadcast             // a load repeats the memory's bytes
	lane                  // a store of the part that an immediate byte chooses
)

// wide says for which W a row holds.
type wide uint8

const (
	anyW wide = iota
	w0
	w1
)

// row is one move between a vector register and memory. Sizes are in bytes.
type row struct {
	opmap, prefix uint8
	load, store   uint16 // opcodes; 0: none (no move has opcode 0)
	enc           encoding
	w             wide
	kind          kind
	memory        int  // of the operand; 0: the vector's length
	element       int  // what one bit of an opmask stands for; 0: takes none
	lengths       uint // bit n: vectors of 16 << n may be; 0: the length is ignored
}

// Vector lengths.
const (
	xmm = 1 << iota
	ymm
	zmm
	xy  = xmm | ymm
	yz  = ymm | zmm
	xyz = xmm | ymm | zmm
)

// rows follows the instruction pages of Intel SDM vol. 2. An instruction that has one
// row a encoding has it for W or for sizes.
var rows = []row{
	// movups, movupd, movss, movsd
	{1, 0x00, 0x10, 0x11, legacy | vex, anyW, whole, 0, 0, xy},
	{1, 0x66, 0x10, 0x11, legacy | vex, anyW, whole, 0, 0, xy},
	{1, 0x00, 0x10, 0x11, evex, w0, whole, 0, 4, xyz},
	{1, 0x66, 0x10, 0x11, evex, w1, whole, 0, 8, xyz},
	{1, 0xf3, 0x10, 0x11, legacy | vex, anyW, scalar, 4, 0, 0},
	{1, 0xf2, 0x10, 0x11, legacy | vex, anyW, scalar, 8, 0, 0},
	{1, 0xf3, 0x10, 0x11, evex, w0, scalar, 4, 4, 0},
	{1, 0xf2, 0x10, 0x11, evex, w1, scalar, 8, 8, 0},
	// movlps, movlpd, movhps, movhpd
	{1, 0x00, 0x12, 0x13, legacy | vex, anyW, lowHalf, 8, 0, xmm},
	{1, 0x66, 0x12, 0x13, legacy | vex, anyW, lowHalf, 8, 0, xmm},
	{1, 0x00, 0x12, 0x13, evex, w0, lowHalf, 8, 0, xmm},
	{1, 0x66, 0x12, 0x13, evex, w1, lowHalf, 8, 0, xmm},
	{1, 0x00, 0x16, 0x17, legacy | vex, anyW, highHalf, 8, 0, xmm},
	{1, 0x66, 0x16, 0x17, legacy | vex, anyW, highHalf, 8, 0, xmm},
	{1, 0x00, 0x16, 0x17, evex, w0, highHalf, 8, 0, xmm},
	{1, 0x66, 0x16, 0x17, evex, w1, highHalf, 8, 0, xmm},
	// movaps, movapd, movntps, movntpd
	{1, 0x00, 0x28, 0x29, legacy | vex, anyW, whole, 0, 0, xy},
	{1, 0x66, 0x28, 0x29, legacy | vex, anyW, whole, 0, 0, xy},
	{1, 0x00, 0x28, 0x29, evex, w0, whole, 0, 4, xyz},
	{1, 0x66, 0x28, 0x29, evex, w1, whole, 0, 8, xyz},
	{1, 0x00, 0, 0x2b, legacy | vex, anyW, whole, 0, 0, xy},
	{1, 0x66, 0, 0x2b, legacy | vex, anyW, whole, 0, 0, xy},
	{1, 0x00, 0, 0x2b, evex, w0, whole, 0, 0, xyz},
	{1, 0x66, 0, 0x2b, evex, w1, whole, 0, 0, xyz},
	// movd, movq
	{1, 0x66, 0x6e, 0x7e, legacy | vex | evex, w0, scalar, 4, 0, xmm},
	{1, 0x66, 0x6e, 0x7e, legacy | vex | evex, w1, scalar, 8, 0, xmm},
	{1, 0xf3, 0x7e, 0, legacy | vex, anyW, scalar, 8, 0, xmm},
	{1, 0xf3, 0x7e, 0, evex, w1, scalar, 8, 0, xmm},
	{1, 0x66, 0, 0xd6, legacy | vex, anyW, scalar, 8, 0, xmm},
	{1, 0x66, 0, 0xd6, evex, w1, scalar, 8, 0, xmm},
	// movdqa, movdqu and their forms by element
	{1, 0x66, 0x6f, 0x7f, legacy | vex, anyW, whole, 0, 0, xy},
	{1, 0xf3, 0x6f, 0x7f, legacy | vex, anyW, whole, 0, 0, xy},
	{1, 0x66, 0x6f, 0x7f, evex, w0, whole, 0, 4, xyz},
	{1, 0x66, 0x6f, 0x7f, evex, w1, whole, 0, 8, xyz},
	{1, 0xf3, 0x6f, 0x7f, evex, w0, whole, 0, 4, xyz},
	{1, 0xf3, 0x6f, 0x7f, evex, w1, whole, 0, 8, xyz},
	{1, 0xf2, 0x6f, 0x7f, evex, w0, whole, 0, 1, xyz},
	{1, 0xf2, 0x6f, 0x7f, evex, w1, whole, 0, 2, xyz},
	// movntdq, movntdqa, lddqu
	{1, 0x66, 0, 0xe7, legacy | vex, anyW, whole, 0, 0, xy},
	{1, 0x66, 0, 0xe7, evex, w0, whole, 0, 0, xyz},
	{2, 0x66, 0x2a, 0, legacy | vex, anyW, whole, 0, 0, xy},
	{2, 0x66, 0x2a, 0, evex, w0, whole, 0, 0, xyz},
	{1, 0xf2, 0xf0, 0, legacy | vex, anyW, whole, 0, 0, xy},
	// vbroadcast and vpbroadcast of one element
	{2, 0x66, 0x18, 0, vex, w0, broadcast, 4, 0, xy},
	{2, 0x66, 0x19, 0, vex, w0, broadcast, 8, 0, ymm},
	{2, 0x66, 0x58, 0, vex, w0, broadcast, 4, 0, xy},
	{2, 0x66, 0x59, 0, vex, w0, broadcast, 8, 0, xy},
	{2, 0x66, 0x78, 0, vex, w0, broadcast, 1, 0, xy},
	{2, 0x66, 0x79, 0, vex, w0, broadcast, 2, 0, xy},
	{2, 0x66, 0x18, 0, evex, w0, broadcast, 4, 4, xyz},
	{2, 0x66, 0x19, 0, evex, w1, broadcast, 8, 8, yz},
	{2, 0x66, 0x58, 0, evex, w0, broadcast, 4, 4, xyz},
	{2, 0x66, 0x59, 0, evex, w1, broadcast, 8, 8, xyz},
	{2, 0x66, 0x78, 0, evex, w0, broadcast, 1, 1, xyz},
	{2, 0x66, 0x79, 0, evex, w0, broadcast, 2, 2, xyz},
	// and of several: f32x2, f128, f32x4, f64x2, f32x8, f64x4, and i for f
	{2, 0x66, 0x1a, 0, vex, w0, broadcast, 16, 0, ymm},
	{2, 0x66, 0x5a, 0, vex, w0, broadcast, 16, 0, ymm},
	{2, 0x66, 0x19, 0, evex, w0, broadcast, 8, 4, yz},
	{2, 0x66, 0x59, 0, evex, w0, broadcast, 8, 4, xyz},
	{2, 0x66, 0x1a, 0, evex, w0, broadcast, 16, 4, yz},
	{2, 0x66, 0x5a, 0, evex, w0, broadcast, 16, 4, yz},
	{2, 0x66, 0x1a, 0, evex, w1, broadcast, 16, 8, yz},
	{2, 0x66, 0x5a, 0, evex, w1, broadcast, 16, 8, yz},
	{2, 0x66, 0x1b, 0, evex, w0, broadcast, 32, 4, zmm},
	{2, 0x66, 0x5b, 0, evex, w0, broadcast, 32, 4, zmm},
	{2, 0x66, 0x1b, 0, evex, w1, broadcast, 32, 8, zmm},
	{2, 0x66, 0x5b, 0, evex, w1, broadcast, 32, 8, zmm},
	// vextractf128 and its kind
	{3, 0x66, 0, 0x19, vex, w0, lane, 16, 0, ymm},
	{3, 0x66, 0, 0x39, vex, w0, lane, 16, 0, ymm},
	{3, 0x66, 0, 0x19, evex, w0, lane, 16, 4, yz},
	{3, 0x66, 0, 0x39, evex, w0, lane, 16, 4, yz},
	{3, 0x66, 0, 0x19, evex, w1, lane, 16, 8, yz},
	{3, 0x66, 0, 0x39, evex, w1, lane, 16, 8, yz},
	{3, 0x66, 0, 0x1b, evex, w0, lane, 32, 4, zmm},
	{3, 0x66, 0, 0x3b, evex, w0, lane, 32, 4, zmm},
	{3, 0x66, 0, 0x1b, evex, w1, lane, 32, 8, zmm},
	{3, 0x66, 0, 0x3b, evex, w1, lane, 32, 8, zmm},
}

// find returns the row of an instruction, or nil, and whether it is a store.
func find(h *head) (_ *row, store bool) {
	for i := range rows {
		r := &rows[i]
		store = r.store == uint16(h.opcode) && r.store != 0
		switch {
		case r.opmap != h.opmap || r.prefix != h.prefix || r.enc&h.enc == 0:
		case r.load != uint16(h.opcode) && !store:
		case r.w == w0 && h.w || r.w == w1 && !h.w:
		case h.vectorLength == 3 || r.lengths != 0 && r.lengths>>h.vectorLength&1 == 0:
		default:
			return r, store
		}
	}
	return nil, false
}

// valid says whether the CPU takes the instruction's other fields with this row.
func (r *row) valid(h *head, store bool) bool {
	second := r.kind == lowHalf || r.kind == highHalf
	switch {
	case h.vvvv != 0 && (!second || store):
		return false // it must be 1111, which reads as 0 here
	case h.broadcast:
		return false
	case h.mask != 0 && r.element == 0:
		return false
	case h.zeroing && (h.mask == 0 || store):
		return false
	}
	return true
}
