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
		changed := changedBytes(word ^ binary.LittleEndian.Uint64(old[at:]))
		dst[n] = byte(changed)
		n += 1 + putBytes((*[wordBytes]byte)(dst[n+1:]), word, changed)
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
func changedBytes(x uint64) uint64 {
	const low7 = 0x7f7f7f7f7f7f7f7f
	// Bit 7 of each byte: a carry out of the low seven bits, or the bit itself.
	high := ((x&low7 + low7) | x) &^ low7
	// Bit 8i of the factor goes to 56+i; no two products meet.
	return high >> 7 * 0x0102040810204080 >> 56
}

// putBytes writes the bytes of word that are in mask, not 0, and returns how many. It may write all
// of dst.
func putBytes(dst *[wordBytes]byte, word, mask uint64) int {
	from := bits.TrailingZeros64(mask)
	word >>= from & 7 * 8
	if run := mask >> from; run&(run+1) == 0 { // neighbours, as numbers and pointers have
		binary.LittleEndian.PutUint64(dst[:], word)
		return bits.Len64(run)
	}
	n := 0
	for mask >>= from; mask != 0; mask >>= 1 {
		dst[n&7] = byte(word)
		word >>= 8
		n += int(mask & 1)
	}
	return n
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
		n += 1 + applyBytes((*[wordBytes]byte)(line[at:]), uint64(body[n]), body[n+1:])
	}
	return n
}

// applyBytes writes the bytes of src to those of word that are in mask, and returns how many.
func applyBytes(word *[wordBytes]byte, mask uint64, src []byte) int {
	from := bits.TrailingZeros64(mask)
	if run := mask >> from; run&(run+1) == 0 && len(src) >= wordBytes {
		keep := ^(^uint64(0) >> (64 - bits.Len64(run)*8) << (from * 8))
		old := binary.LittleEndian.Uint64(word[:])
		fresh := binary.LittleEndian.Uint64(src) << (from * 8)
		binary.LittleEndian.PutUint64(word[:], old&keep|fresh&^keep)
		return bits.Len64(run)
	}
	n := 0
	for ; mask != 0; mask &= mask - 1 {
		word[bits.TrailingZeros64(mask)&7] = src[n]
		n++
	}
	return n
}
