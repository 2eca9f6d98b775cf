package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// isa is what the compare kernels need of an instruction set.
type isa interface {
	load(from Mem) line                       // reads each byte once
	store(l line, to Mem)                     // writes what load has read
	equal(l line, twin Mem)                   // CF = the line is the twin's
	differing(l line, twin Mem) reg.GPVirtual // bit i = byte i differs
}

// line is the registers that hold the 64 bytes of one.
type line []reg.VecVirtual

// compareKernels writes mask and the updates.
func compareKernels(s isa, suffix string) {
	maskKernel(s, suffix)
	updateKernel(s, suffix)
	updateAheadKernel(s, suffix)
	updateCountKernel(s, suffix)
}

func maskKernel(s isa, suffix string) {
	begin("mask"+suffix, "func(page, twin *byte) (mask uint64)",
		"mask returns the lines of page that differ from twin's.")
	page, twin := cursorTo("page", lineBytes), cursorTo("twin", lineBytes)
	end(eachLine(groupLines, func(i int) {
		s.equal(s.load(page.of(i)), twin.of(i))
	}, page, twin))
}

func updateKernel(s isa, suffix string) {
	begin("update"+suffix, "func(page, twin *byte) (mask uint64)",
		"update is mask, and stores what differs to twin from the registers that were compared.")
	page, twin := cursorTo("page", lineBytes), cursorTo("twin", lineBytes)
	end(eachUpdate(s, page, twin, s.equal))
}

func updateAheadKernel(s isa, suffix string) {
	begin("updateAhead"+suffix, "func(page, twin, nextPage, nextTwin *byte) (mask uint64)",
		"updateAhead is update, and fetches the next page and its twin meanwhile.")
	page, twin := cursorTo("page", lineBytes), cursorTo("twin", lineBytes)
	next := []cursor{cursorTo("nextPage", lineBytes), cursorTo("nextTwin", lineBytes)}
	end(eachUpdate(s, page, twin, s.equal, next...))
}

func updateCountKernel(s isa, suffix string) {
	begin("updateCount"+suffix, "func(page, twin *byte) (mask uint64, changedBytes int)",
		"updateCount is update, and counts the bytes that differ.")
	page, twin := cursorTo("page", lineBytes), cursorTo("twin", lineBytes)
	changed, count := zero(), GP64()
	mask := eachUpdate(s, page, twin, func(l line, twin Mem) {
		bytes := s.differing(l, twin)
		POPCNTQ(bytes, count)
		ADDQ(count, changed)
		CMPQ(bytes, U8(1)) // CF = no byte differs; last, since POPCNT and ADD set CF too
	})
	Store(changed, Return("changedBytes"))
	end(mask)
}

// eachUpdate emits the loop of an update. compare leaves CF set if a line is its twin's. A
// group in which a line differs is stored whole, and not line by line: see doc.go of package diff.
func eachUpdate(s isa, page, twin cursor, compare func(l line, twin Mem), next ...cursor) (mask reg.GPVirtual) {
	var group [groupLines]line
	return eachLineThen(groupLines, func(i int) {
		for _, n := range next {
			fetch(n.of(i))
		}
		group[i] = s.load(page.of(i))
		compare(group[i], twin.of(i))
	}, func() {
		for i, l := range group {
			s.store(l, twin.of(i))
		}
	}, append([]cursor{page, twin}, next...)...)
}
