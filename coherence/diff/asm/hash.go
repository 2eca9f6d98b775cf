package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The field is GF(2)[x] modulo x^64 + x^4 + x^3 + x + 1, so that x^64 = 0x1b.
const polynomial = 0x1b

// Which halves of two 128-bit operands PCLMULQDQ multiplies.
const (
	lowLow   = 0x00
	highHigh = 0x11
)

// How many lines a turn of a hash loop takes. With AVX-512, as many as sums fill a register.
const (
	xmmLines = 2
	zmmLines = 8
)

const (
	updateHashSignature      = "func(page *byte, key *[8]uint64, sums *[64]uint64) (mask uint64)"
	updateHashAheadSignature = "func(page *byte, key *[8]uint64, sums *[64]uint64, nextPage *byte) (mask uint64)"

	updateHashDoc      = "updateHash writes the sum of each line of page, and returns the lines whose sum was another."
	updateHashAheadDoc = "updateHashAhead is updateHash, and fetches the next page meanwhile."
)

// hashAVX2 writes the kernels that hash one line at a time.
func hashAVX2() {
	begin("updateHashAVX2", updateHashSignature, updateHashDoc)
	page, sums, key := cursorTo("page", lineBytes), cursorTo("sums", sumBytes), loadKeyXMM()
	end(key.eachUpdate(page, sums))

	begin("updateHashAheadAVX2", updateHashAheadSignature, updateHashAheadDoc)
	page, sums, key = cursorTo("page", lineBytes), cursorTo("sums", sumBytes), loadKeyXMM()
	end(key.eachUpdate(page, sums, cursorTo("nextPage", lineBytes)))
}

// keyXMM is the key's eight words, two a register, and the polynomial in both halves of one.
type keyXMM struct {
	words      [4]reg.VecVirtual
	polynomial reg.VecVirtual
}

func loadKeyXMM() (k keyXMM) {
	from := Mem{Base: Load(Param("key"), GP64())}
	for i := range k.words {
		k.words[i] = XMM()
		VMOVDQU(from.Offset(16*i), k.words[i])
	}
	word := GP64()
	k.polynomial = XMM()
	MOVQ(U32(polynomial), word)
	VMOVQ(word, k.polynomial)
	VPBROADCASTQ(k.polynomial, k.polynomial)
	return k
}

// sum returns the sum of a line in the low half of a register.
func (k keyXMM) sum(from Mem) reg.VecVirtual {
	sum := XMM()
	for i, key := range k.words {
		words, low, high := XMM(), XMM(), XMM()
		VMOVDQU(from.Offset(16*i), words)
		VPCLMULQDQ(U8(lowLow), key, words, low)
		VPCLMULQDQ(U8(highHigh), key, words, high)
		if i == 0 {
			VPXOR(low, high, sum)
		} else {
			VPXOR(low, sum, sum)
			VPXOR(high, sum, sum)
		}
	}
	// See reduce of AVX-512.
	once, twice := XMM(), XMM()
	VPCLMULQDQ(U8(highHigh), k.polynomial, sum, once)
	VPCLMULQDQ(U8(highHigh), k.polynomial, once, twice)
	VPXOR(once, sum, sum)
	VPXOR(twice, sum, sum)
	return sum
}

// eachUpdate emits the loop of an update.
func (k keyXMM) eachUpdate(page, sums cursor, next ...cursor) (mask reg.GPVirtual) {
	var group [xmmLines]reg.GPVirtual
	return eachLineThen(xmmLines, func(i int) {
		for _, n := range next {
			fetch(n.of(i))
		}
		group[i] = GP64()
		VMOVQ(k.sum(page.of(i)), group[i])
		change := GP64()
		MOVQ(group[i], change)
		XORQ(sums.of(i), change)
		CMPQ(change, U8(1)) // CF = no change
	}, func() {
		for i, sum := range group {
			MOVQ(sum, sums.of(i))
		}
	}, append([]cursor{page, sums}, next...)...)
}

// hashAVX512 writes the kernels that hash eight lines at a time.
func hashAVX512() {
	begin("updateHashAVX512", updateHashSignature, updateHashDoc)
	page, sums, key := cursorTo("page", lineBytes), cursorTo("sums", sumBytes), loadKeyZMM()
	mask := zero()
	eachGroup(zmmLines, func() {
		key.updateSums(page, sums, mask)
	}, page, sums)
	end(mask)

	begin("updateHashAheadAVX512", updateHashAheadSignature, updateHashAheadDoc)
	page, sums, key = cursorTo("page", lineBytes), cursorTo("sums", sumBytes), loadKeyZMM()
	next := cursorTo("nextPage", lineBytes)
	mask = zero()
	eachGroup(zmmLines, func() {
		for i := range zmmLines {
			fetch(next.of(i))
		}
		key.updateSums(page, sums, mask)
	}, page, sums, next)
	end(mask)
}

// keyZMM is the key's eight words, and the polynomial in every word.
type keyZMM struct{ words, polynomial reg.VecVirtual }

func loadKeyZMM() keyZMM {
	k := keyZMM{ZMM(), ZMM()}
	VMOVDQU64(Mem{Base: Load(Param("key"), GP64())}, k.words)
	word := GP64()
	MOVQ(U32(polynomial), word)
	VPBROADCASTQ(word, k.polynomial)
	return k
}

// sums returns the sums of a group of eight lines.
func (k keyZMM) sums(group cursor) reg.VecVirtual {
	even := k.reduce(addLanes(k.products(group.of(0)), k.products(group.of(2)), k.products(group.of(4)), k.products(group.of(6))))
	odd := k.reduce(addLanes(k.products(group.of(1)), k.products(group.of(3)), k.products(group.of(5)), k.products(group.of(7))))
	sums := ZMM()
	VPUNPCKLQDQ(odd, even, sums)
	return sums
}

// updateSums replaces a group's stored sums, and shifts the 8 bits of those that differ into
// mask from above.
func (k keyZMM) updateSums(group, stored cursor, mask reg.GPVirtual) {
	now, differ, bits, clean := k.sums(group), K(), GP64(), label("clean")
	VPCMPUQ(U8(notEqual), stored.Mem, now, differ)
	KMOVB(differ, bits.As32())
	SHRQ(U8(zmmLines), mask)
	SHLQ(U8(pageLines-zmmLines), bits)
	JZ(LabelRef(clean)) // SHL's result
	VMOVDQU64(now, stored.Mem)
	ORQ(bits, mask)
	Label(clean)
}

// products returns four 128-bit lanes, which add up to the line's sum before its reduction.
func (k keyZMM) products(from Mem) reg.VecVirtual {
	words, low, high := ZMM(), ZMM(), ZMM()
	VMOVDQU64(from, words)
	VPCLMULQDQ(U8(lowLow), k.words, words, low)
	VPCLMULQDQ(U8(highHigh), k.words, words, high)
	VPXORQ(low, high, low)
	return low
}

// addLanes returns the sum of each argument's lanes, in the lane of the argument's number.
func addLanes(a, b, c, d reg.VecVirtual) reg.VecVirtual {
	ab := addShuffled(a, b, 0x44, 0xee)    // a0+a2 a1+a3 b0+b2 b1+b3
	cd := addShuffled(c, d, 0x44, 0xee)    // the same of c and d
	return addShuffled(ab, cd, 0x88, 0xdd) // a b c d
}

// addShuffled adds two selections of lanes: low halves of left and right, high halves, or the like.
func addShuffled(left, right reg.VecVirtual, one, other uint8) reg.VecVirtual {
	x, y := ZMM(), ZMM()
	VSHUFI64X2(U8(one), right, left, x)
	VSHUFI64X2(U8(other), right, left, y)
	VPXORQ(x, y, x)
	return x
}

// reduce takes each 128-bit lane modulo the polynomial, into its low half. x^64 = 0x1b folds the
// high half to 68 bits at most, and the 4 bits above 64 once more.
func (k keyZMM) reduce(sum reg.VecVirtual) reg.VecVirtual {
	once, twice := ZMM(), ZMM()
	VPCLMULQDQ(U8(highHigh), k.polynomial, sum, once)
	VPCLMULQDQ(U8(highHigh), k.polynomial, once, twice)
	VPTERNLOGQ(U8(0x96), twice, once, sum) // sum ^ once ^ twice
	return sum
}
