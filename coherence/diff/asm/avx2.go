package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

type avx2 struct{}

func (avx2) load(from Mem) line {
	l := line{YMM(), YMM()}
	VMOVDQU(from, l[0])
	VMOVDQU(from.Offset(32), l[1])
	return l
}

func (avx2) store(l line, to Mem) {
	VMOVDQU(l[0], to)
	VMOVDQU(l[1], to.Offset(32))
}

func (avx2) equal(l line, twin Mem) {
	low, high, bits := YMM(), YMM(), GP32()
	VPCMPEQB(twin, l[0], low)
	VPCMPEQB(twin.Offset(32), l[1], high)
	VPAND(low, high, low)
	VPMOVMSKB(low, bits)
	ADDL(U8(1), bits) // carries if all 32 bits are set
}

func (avx2) differing(l line, twin Mem) reg.GPVirtual {
	lowBytes, highBytes, low, high := YMM(), YMM(), GP64(), GP64()
	VPCMPEQB(twin, l[0], lowBytes)
	VPCMPEQB(twin.Offset(32), l[1], highBytes)
	VPMOVMSKB(lowBytes, low.As32())
	VPMOVMSKB(highBytes, high.As32())
	SHLQ(U8(32), high)
	ORQ(high, low)
	NOTQ(low)
	return low
}

// nonZeroKernel is for AVX-512 too, whose kernel would be slower: one KORTEST a cycle.
func nonZeroKernel() {
	begin("nonZeroAVX2", "func(page *byte) (mask uint64)",
		"nonZero returns the lines of page with a byte that is not zero.")
	page, zeros := cursorTo("page", lineBytes), YMM()
	VPXOR(zeros, zeros, zeros)
	end(eachLine(groupLines, func(i int) {
		l := avx2{}.load(page.of(i))
		VPOR(l[0], l[1], l[0])
		VPTEST(l[0], zeros) // CF = (l AND NOT 0) is 0
	}, page))
}
