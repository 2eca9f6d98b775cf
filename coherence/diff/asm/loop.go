package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const (
	lineBytes  = 64
	sumBytes   = 8
	pageLines  = 64
	groupLines = 4 // lines a turn of a loop: eight are not faster
)

// cursor is a parameter that points to something of each line and moves on with the loop.
type cursor struct {
	Mem
	stride int // bytes a line
}

func cursorTo(param string, stride int) cursor {
	return cursor{Mem{Base: Load(Param(param), GP64())}, stride}
}

// of is where the group's line i is.
func (c cursor) of(i int) Mem { return c.Offset(i * c.stride) }

// begin opens a kernel.
func begin(name, signature, doc string) {
	TEXT(name, NOSPLIT, signature)
	Pragma("noescape")
	Doc(doc)
}

// eachGroup emits a loop over the page, some lines a turn.
func eachGroup(lines int, body func(), cursors ...cursor) {
	turns, loop := GP32(), label("group")
	MOVL(U32(pageLines/lines), turns)
	Label(loop)
	body()
	for _, c := range cursors {
		ADDQ(I32(lines*c.stride), c.Base)
	}
	DECL(turns)
	JNZ(LabelRef(loop))
}

// eachLine emits a loop over the page's lines and returns the mask of those for which body
// leaves CF clear. RCR shifts CF in from above: after 64 lines bit i stands for line i.
func eachLine(lines int, body func(i int), cursors ...cursor) (mask reg.GPVirtual) {
	return eachLineThen(lines, body, nil, cursors...)
}

// eachLineThen is eachLine; a turn of the loop with a line in the mask ends with changed.
func eachLineThen(lines int, body func(i int), changed func(), cursors ...cursor) (mask reg.GPVirtual) {
	clean, allClean := zero(), GP64()
	if changed != nil {
		MOVQ(U64(^uint64(0)<<(pageLines-lines)), allClean)
	}
	eachGroup(lines, func() {
		for i := range lines {
			body(i)
			RCRQ(U8(1), clean)
		}
		if changed == nil {
			return
		}
		skip := label("clean")
		CMPQ(clean, allClean) // the turn's bits are the highest
		JAE(LabelRef(skip))
		changed()
		Label(skip)
	}, cursors...)
	NOTQ(clean)
	return clean
}

// zero returns a register of zero.
func zero() reg.GPVirtual {
	r := GP64()
	XORL(r.As32(), r.As32())
	return r
}

// fetch asks for a line to the second cache. To the first (PREFETCHT0, NTA) is slower than nothing.
func fetch(from Mem) { PREFETCHT1(from) }

// end returns mask to Go.
func end(mask reg.GPVirtual) {
	Store(mask, Return("mask"))
	leave()
}

// leave returns to Go, whose SSE code is slow while upper halves are in use.
func leave() {
	VZEROUPPER()
	RET()
}

var labels int

func label(prefix string) string {
	labels++
	return fmt.Sprintf("%s%d", prefix, labels)
}
