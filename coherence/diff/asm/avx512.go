package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const notEqual = 4 // predicate of VPCMPU

type avx512 struct{}

func (avx512) load(from Mem) line {
	l := line{ZMM()}
	VMOVDQU64(from, l[0])
	return l
}

func (avx512) store(l line, to Mem) { VMOVDQU64(l[0], to) }

func (avx512) equal(l line, twin Mem) {
	same := K()
	VPCMPEQQ(twin, l[0], same)
	KORTESTB(same, same) // CF = all 8 bits are set
}

func (avx512) differing(l line, twin Mem) reg.GPVirtual {
	differ, bytes := K(), GP64()
	VPCMPUB(U8(notEqual), twin, l[0], differ)
	KMOVQ(differ, bytes)
	return bytes
}
