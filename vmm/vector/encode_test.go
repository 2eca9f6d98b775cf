package vector

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"
)

// sample is a random instruction and what its fields are.
type sample struct {
	code []byte
	instruction
}

// randomness prints the seed of a test's random numbers.
func randomness(t testing.TB) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// pick returns one of the values.
func pick[T any](r *rand.Rand, values ...T) T { return values[r.IntN(len(values))] }

// chance is true once in n.
func chance(r *rand.Rand, n int) bool { return r.IntN(n) == 0 }

// sampleOf spells a random instruction of a row of the table. place may change the memory operand.
func sampleOf(r *rand.Rand, row *row, store bool, enc encoding, place func(*operand)) sample {
	in := instruction{row: row, store: store, hasMemory: true}
	in.enc, in.opmap, in.prefix = enc, row.opmap, row.prefix
	in.opcode = byte(row.load)
	if store {
		in.opcode = byte(row.store)
	}
	in.w = row.w == w1 || row.w == anyW && enc == vex && chance(r, 2)
	registers := 16
	if enc == evex {
		registers = 32
		if row.element != 0 && !chance(r, 3) {
			in.mask = r.IntN(8)
			in.zeroing = in.mask != 0 && !store && chance(r, 2)
		}
	}
	if enc != legacy {
		for in.vectorLength = uint8(r.IntN(3)); row.lengths != 0 && row.lengths>>in.vectorLength&1 == 0; {
			in.vectorLength = uint8(r.IntN(3))
		}
		if row.lengths == 0 && enc == vex {
			in.vectorLength &= 1
		}
		if (row.kind == lowHalf || row.kind == highHalf) && !store {
			in.vvvv = r.IntN(registers)
		}
	}
	in.reg = r.IntN(registers)
	in.imm = byte(r.Uint32())
	in.memory = operand{Base: r.IntN(16), Index: pick(r, -1, r.IntN(16)), Scale: pick[uint64](r, 1, 2, 4, 8)}
	in.memory.segment = pick(r, NoSegment, NoSegment, FS, GS)
	in.memory.Address32 = chance(r, 8)
	in.memory.Disp = int64(int32(r.Uint32()))
	switch r.IntN(6) {
	case 0:
		in.memory.Base, in.memory.Index, in.memory.Relative = -1, -1, true
	case 1:
		in.memory.Base = -1
	case 2, 3:
		in.memory.Disp, in.memory.Disp8 = int64(int8(in.memory.Disp)), true
	case 4:
		if in.memory.Base&7 != 5 {
			in.memory.Disp = 0
		}
	}
	if in.memory.Index == noIndex {
		in.memory.Index = -1
	}
	if in.memory.Index < 0 {
		in.memory.Scale = 1
	}
	if place != nil {
		place(&in.memory)
	}
	s := sample{instruction: in}
	s.spell()
	s.length = len(s.code)
	return s
}

// spell encodes the instruction (Intel SDM vol. 2A, chapter 2).
func (s *sample) spell() {
	o, h := &s.memory, &s.head
	put := func(b ...byte) { s.code = append(s.code, b...) }
	if o.Address32 {
		put(0x67)
	}
	if o.segment != NoSegment {
		put(0x63 + byte(o.segment))
	}
	x, b := max(o.Index, 0)>>3&1, max(o.Base, 0)>>3&1
	w := 0
	if h.w {
		w = 1
	}
	pp := map[uint8]int{0: 0, 0x66: 1, 0xf3: 2, 0xf2: 3}[h.prefix]
	flip := func(v int) byte { return byte(^v & 1) }
	switch h.enc {
	case legacy:
		if h.prefix != 0 {
			put(h.prefix)
		}
		if rex := byte(0x40 | w<<3 | s.reg>>3&1<<2 | x<<1 | b); rex != 0x40 {
			put(rex)
		}
		put([][]byte{1: {0x0f}, 2: {0x0f, 0x38}, 3: {0x0f, 0x3a}}[h.opmap]...)
	case vex:
		tail := byte(^h.vvvv&0xf)<<3 | h.vectorLength<<2 | byte(pp)
		if h.opmap == 1 && w == 0 && x == 0 && b == 0 {
			put(0xc5, flip(s.reg>>3)<<7|tail)
			break
		}
		put(0xc4, flip(s.reg>>3)<<7|flip(x)<<6|flip(b)<<5|h.opmap, byte(w)<<7|tail)
	case evex:
		z := byte(0)
		if h.zeroing {
			z = 1
		}
		put(0x62, flip(s.reg>>3)<<7|flip(x)<<6|flip(b)<<5|flip(s.reg>>4)<<4|h.opmap,
			byte(w)<<7|byte(^h.vvvv&0xf)<<3|1<<2|byte(pp),
			z<<7|h.vectorLength<<5|flip(h.vvvv>>4)<<3|byte(h.mask))
	}
	put(h.opcode)
	s.spellOperand(put)
	if s.row.kind == lane {
		put(s.imm)
	}
}

func (s *sample) spellOperand(put func(...byte)) {
	o := &s.memory
	reg := byte(s.reg&7) << 3
	var sib []byte
	rm := byte(o.Base & 7)
	switch {
	case o.Relative:
		rm = 5
	case o.Index >= 0 || o.Base < 0 || o.Base&7 == 4:
		scale := map[uint64]byte{1: 0, 2: 1, 4: 2, 8: 3}[o.Scale]
		index := byte(noIndex)
		if o.Index >= 0 {
			index = byte(o.Index & 7)
		}
		base := rm
		if o.Base < 0 {
			base = 5
		}
		sib, rm = []byte{scale<<6 | index<<3 | base}, 4
	}
	disp := binary.LittleEndian.AppendUint32(nil, uint32(o.Disp))
	switch {
	case o.Base < 0:
		put(reg | rm)
	case o.Disp8:
		put(0x40 | reg | rm)
		disp = disp[:1]
	case o.Disp == 0 && o.Base&7 != 5:
		put(reg | rm)
		disp = nil
	default:
		put(0x80 | reg | rm)
	}
	put(sib...)
	put(disp...)
}

// everySample calls fn with n samples of each row, direction and encoding.
func everySample(r *rand.Rand, n int, place func(*operand), fn func(sample)) {
	for i := range rows {
		for _, enc := range []encoding{legacy, vex, evex} {
			if rows[i].enc&enc == 0 {
				continue
			}
			for range n {
				if rows[i].load != 0 {
					fn(sampleOf(r, &rows[i], false, enc, place))
				}
				if rows[i].store != 0 {
					fn(sampleOf(r, &rows[i], true, enc, place))
				}
			}
		}
	}
}
