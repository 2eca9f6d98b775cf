package vector

// encoding is how an instruction's opcode is spelled.
type encoding uint8

const (
	legacy encoding = 1 << iota
	vex
	evex
)

// MaxBytes is the length limit of an instruction.
const MaxBytes = 15

// head is what precedes ModRM, with the bits of REX, VEX and EVEX in one form.
type head struct {
	enc    encoding
	opmap  uint8 // 0: one byte, 1: 0F, 2: 0F 38, 3: 0F 3A, others
	prefix uint8 // 0, 0x66, 0xf3 or 0xf2: what selects the operation
	opcode uint8
	w      bool
	// High bits of register numbers: reg (ModRM.reg), index, base; vvvv is whole.
	reg, index, base, vvvv int
	vectorLength           uint8 // VEX.L or EVEX.L'L: 16 bytes << vectorLength
	mask                   int   // EVEX.aaa
	zeroing, broadcast     bool  // EVEX.z, EVEX.b

	address32 bool
	segment   segment
}

// segment is a segment that has a base in 64-bit mode.
type segment uint8

const (
	NoSegment segment = iota
	FS
	GS
)

// reader takes bytes off the code.
type reader struct {
	code []byte
	at   int
}

func (r *reader) next() (byte, error) {
	if r.at >= len(r.code) || r.at >= MaxBytes {
		return 0, ErrTruncated
	}
	r.at++
	return r.code[r.at-1], nil
}

// displacement reads a little-endian signed number of n bytes, 1 or 4.
func (r *reader) displacement(n int) (int64, error) {
	var v uint32
	for i := range n {
		b, err := r.next()
		if err != nil {
			return 0, err
		}
		v |= uint32(b) << (8 * i)
	}
	if n == 1 {
		return int64(int8(v)), nil
	}
	return int64(int32(v)), nil
}

// bit returns bit n of b.
func bit(b byte, n int) int { return int(b >> n & 1) }

var impliedPrefix = [4]uint8{0, 0x66, 0xf3, 0xf2} // VEX.pp

// head reads prefixes and opcode (Intel SDM vol. 2A, 2.1 to 2.3 and 2.7).
func (r *reader) head() (h head, err error) {
	var b, rex byte
	for {
		if b, err = r.next(); err != nil {
			return h, err
		}
		switch {
		case b == 0x66 && h.prefix == 0, b == 0xf2, b == 0xf3:
			h.prefix = b // F2 and F3 win over 66
		case b == 0x67:
			h.address32 = true
		case b == 0x64:
			h.segment = FS
		case b == 0x65:
			h.segment = GS
		case b == 0x66, b == 0xf0, b == 0x26, b == 0x2e, b == 0x36, b == 0x3e:
		case b&0xf0 == 0x40:
			rex = b
			continue // counts only right before the opcode
		default:
			return h, r.opcode(&h, b, rex)
		}
		rex = 0
	}
}

// opcode reads on from the first byte that is no prefix.
func (r *reader) opcode(h *head, b, rex byte) (err error) {
	if b == 0xc4 || b == 0xc5 || b == 0x62 {
		if rex != 0 || h.prefix != 0 {
			return ErrUnknown // an invalid opcode
		}
		switch b {
		case 0xc5:
			return r.vex2(h)
		case 0xc4:
			return r.vex3(h)
		}
		return r.evex(h)
	}
	h.enc = legacy
	h.w = rex&8 != 0
	h.reg, h.index, h.base = bit(rex, 2)<<3, bit(rex, 1)<<3, bit(rex, 0)<<3
	if b == 0x0f {
		h.opmap = 1
		if b, err = r.next(); err != nil {
			return err
		}
		if b == 0x38 || b == 0x3a {
			h.opmap = 2 + (b&2)>>1
			if b, err = r.next(); err != nil {
				return err
			}
		}
	}
	h.opcode = b
	return nil
}

func (r *reader) vex2(h *head) error {
	p, err := r.next()
	if err != nil {
		return err
	}
	h.enc, h.opmap = vex, 1
	h.reg = bit(^p, 7) << 3
	return r.vexTail(h, p)
}

func (r *reader) vex3(h *head) error {
	p, err := r.next()
	if err != nil {
		return err
	}
	h.enc, h.opmap = vex, p&0x1f
	h.reg, h.index, h.base = bit(^p, 7)<<3, bit(^p, 6)<<3, bit(^p, 5)<<3
	if p, err = r.next(); err != nil {
		return err
	}
	h.w = bit(p, 7) != 0
	return r.vexTail(h, p)
}

// vexTail reads what the last payload bytes of both VEX forms share: vvvv, L, pp, and the opcode.
func (r *reader) vexTail(h *head, p byte) (err error) {
	h.vvvv = int(^p>>3) & 0xf
	h.vectorLength = p >> 2 & 1
	h.prefix = impliedPrefix[p&3]
	h.opcode, err = r.next()
	return err
}

func (r *reader) evex(h *head) (err error) {
	var p [3]byte
	for i := range p {
		if p[i], err = r.next(); err != nil {
			return err
		}
	}
	if p[0]&8 != 0 || p[1]&4 == 0 { // fixed bits, or the register extension of APX
		return ErrUnknown
	}
	h.enc, h.opmap = evex, p[0]&7
	h.reg = bit(^p[0], 7)<<3 | bit(^p[0], 4)<<4
	h.index, h.base = bit(^p[0], 6)<<3, bit(^p[0], 5)<<3
	h.w = bit(p[1], 7) != 0
	h.vvvv = int(^p[1]>>3)&0xf | bit(^p[2], 3)<<4
	h.prefix = impliedPrefix[p[1]&3]
	h.zeroing, h.broadcast = bit(p[2], 7) != 0, bit(p[2], 4) != 0
	h.vectorLength = p[2] >> 5 & 3
	h.mask = int(p[2] & 7)
	h.opcode, err = r.next()
	return err
}
