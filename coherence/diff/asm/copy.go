package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// copyKernels writes gather and scatter, which differ in the side that is contiguous.
func copyKernels(s isa, suffix string) {
	begin("gather"+suffix, "func(dst, page *byte, mask uint64)",
		"gather copies the lines of mask, of which there is one at least, to dst.")
	dst, page := cursorTo("dst", lineBytes), cursorTo("page", lineBytes)
	eachBit(func(at reg.GPVirtual) {
		s.store(s.load(page.Idx(at, 1)), dst.Mem)
		ADDQ(I8(lineBytes), dst.Base)
	})

	begin("scatter"+suffix, "func(page, src *byte, mask uint64)",
		"scatter copies src to the lines of mask, of which there is one at least.")
	page, src := cursorTo("page", lineBytes), cursorTo("src", lineBytes)
	eachBit(func(at reg.GPVirtual) {
		s.store(s.load(src.Mem), page.Idx(at, 1))
		ADDQ(I8(lineBytes), src.Base)
	})
}

// eachBit emits a loop over the bits of mask; at is where in the page the bit's line is.
func eachBit(body func(at reg.GPVirtual)) {
	mask, at, loop := Load(Param("mask"), GP64()).(reg.GPVirtual), GP64(), label("line")
	Label(loop)
	TZCNTQ(mask, at)
	SHLQ(U8(6), at) // line to byte
	body(at)
	BLSRQ(mask, mask)
	JNZ(LabelRef(loop))
	leave()
}
