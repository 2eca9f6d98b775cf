package wire

import (
	"encoding/binary"
	"math/bits"
)

// A line's delta: a byte that says which of its eight words have changed, and for each of them, in
// ascending order, a byte that says which of its bytes have, at least one, and the new ones of these in
// ascending order. New bytes, and not differences: applied twice it is the same.
const (
	wordBytes         = 8
	maxLineDeltaBytes = 1 + lineBytes/wordBytes*(1+wordBytes)
	// deltaSlackBytes is how far putDelta writes beyond what counts.
	deltaSlackBytes = wordBytes
)

// putDelta writes the deltas of lines and returns their size, or false if the raw lines are not larger.
// dst has room for the raw lines, one line's delta and the slack.
func putDelta(dst, fresh, old []byte) (int, bool) {
	n := 0
	for at := 0; at+lineBytes <= len(fresh); at += lineBytes {
		n += putLineDelta((*lineDelta)(dst[n:]), (*[lineBytes]byte)(fresh[at:]), (*[lineBytes]byte)(old[at:]))
		if n >= len(fresh) {
			return 0, false
		}
	}
	return n, true
}

// lineDelta is room for one.
type lineDelta [maxLineDeltaBytes + deltaSlackBytes]byte

func putLineDelta(dst *lineDelta, fresh, old *[lineBytes]byte) int {
	words := changedWords(fresh, old)
	dst[0] = byte(words)
	n := 1
	for ; words != 0; words &= words - 1 {
		at := bits.TrailingZeros64(words) & 7 * wordBytes
		word := binary.LittleEndian.Uint64(fresh[at:])
		mask := changedBytes(word ^ binary.LittleEndian.Uint64(old[at:]))
		dst[n] = mask
		binary.LittleEndian.PutUint64(dst[n+1:], packs[mask].compress(word))
		n += 1 + bits.OnesCount8(mask)
	}
	return n
}

// changedWords has bit i set if word i of the lines differs. It has no branch to mispredict.
func changedWords(a, b *[lineBytes]byte) (words uint64) {
	for i := range lineBytes / wordBytes {
		x := binary.LittleEndian.Uint64(a[i*wordBytes:]) ^ binary.LittleEndian.Uint64(b[i*wordBytes:])
		words |= (x | -x) >> 63 << i
	}
	return words
}

// changedBytes has bit i set if byte i of x is not 0.
func changedBytes(x uint64) byte {
	const low7 = 0x7f7f7f7f7f7f7f7f
	// Bit 7 of each byte: a carry out of the low seven bits, or the bit itself.
	high := ((x&low7 + low7) | x) &^ low7
	// Bit 8i of the factor goes to 56+i; no two products meet.
	return byte(high >> 7 * 0x0102040810204080 >> 56)
}

// pack moves the bytes of a word that are in a mask down to its low end, and back, as PEXT and PDEP do
// with bits: each byte goes 1, 2 and 4 bytes far or not, in three steps without a branch (Warren,
// "Hacker's Delight", 7-4 and 7-5).
type pack struct {
	bytes  uint64    // 0xff in each byte of the mask
	moving [3]uint64 // 0xff in each byte that step i moves by 1<<i
}

// packs has one for each mask.
var packs = makePacks()

func makePacks() (all [256]pack) {
	for mask := range all {
		p := &all[mask]
		for from := range wordBytes {
			if mask>>from&1 == 0 {
				continue
			}
			p.bytes |= 0xff << (from * 8)
			distance := from - bits.OnesCount(uint(mask)&(1<<from-1))
			at := from
			for step := range p.moving {
				if distance>>step&1 != 0 {
					p.moving[step] |= 0xff << (at * 8)
					at -= 1 << step
				}
			}
		}
	}
	return all
}

// compress moves the mask's bytes down. Zeros are above them.
func (p *pack) compress(x uint64) uint64 {
	x &= p.bytes
	m := x & p.moving[0]
	x = x ^ m | m>>8
	m = x & p.moving[1]
	x = x ^ m | m>>16
	m = x & p.moving[2]
	return x ^ m | m>>32
}

// expand moves the low bytes of x up to those of the mask. Zeros are between them.
func (p *pack) expand(x uint64) uint64 {
	x ^= (x ^ x<<32) & p.moving[2]
	x ^= (x ^ x<<16) & p.moving[1]
	x ^= (x ^ x<<8) & p.moving[0]
	return x & p.bytes
}

// deltaSize returns the size of the first count lines in body, or -1 if they are malformed. It may be
// more than there is.
func deltaSize(body []byte, count int) int {
	n := 0
	for range count {
		if n >= len(body) {
			return -1
		}
		words := body[n]
		n++
		for ; words != 0; words &= words - 1 {
			if n >= len(body) || body[n] == 0 {
				return -1
			}
			n += 1 + bits.OnesCount8(body[n])
		}
	}
	return n
}

// applyDelta writes the line that body begins with, which deltaSize has checked, and returns its size.
func applyDelta(line *[lineBytes]byte, body []byte) int {
	n := 1
	for words := body[0]; words != 0; words &= words - 1 {
		at := bits.TrailingZeros8(words) & 7 * wordBytes
		mask := body[n]
		p := &packs[mask]
		old := binary.LittleEndian.Uint64(line[at:])
		binary.LittleEndian.PutUint64(line[at:], old&^p.bytes|p.expand(loadUint64(body[n+1:])))
		n += 1 + bits.OnesCount8(mask)
	}
	return n
}

// loadUint64 loads a word that may reach beyond the slice, with bytes of which nothing is said.
func loadUint64(b []byte) uint64 {
	if cap(b) >= wordBytes { // what is behind a body in its frame
		return binary.LittleEndian.Uint64(b[:wordBytes])
	}
	var word [wordBytes]byte
	copy(word[:], b)
	return binary.LittleEndian.Uint64(word[:])
}
