package linescheck

import (
	"fmt"
	"math/bits"
	"strings"

	"github.com/fineline-vmm/fineline/memory"
)

// kind is a kind of access, as images/lines/abi.h numbers them.
type kind uint32

const (
	scalar kind = iota
	stringOp
	sse
	atomic
	load
	avx
	evex
	atomic16
	kindCount
)

var kindNames = [kindCount]string{"scalar", "string", "sse", "atomic", "load", "avx", "evex", "atomic16"}

// Kinds is a set of kinds of access.
type Kinds uint32

// The kinds of access.
const (
	Scalar   Kinds = 1 << scalar
	String   Kinds = 1 << stringOp
	SSE      Kinds = 1 << sse
	Atomic   Kinds = 1 << atomic
	Load     Kinds = 1 << load
	AVX      Kinds = 1 << avx      // 32 bytes, VEX
	EVEX     Kinds = 1 << evex     // 64 bytes
	Atomic16 Kinds = 1 << atomic16 // lock cmpxchg16b
)

// String gives the list as the guest's option kinds has it.
func (k Kinds) String() string {
	var names []string
	for i, name := range kindNames {
		if k>>i&1 != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

// The forms of each kind, in the order of images/lines/abi.h.
const (
	scalarStore = iota
	scalarSilent
	scalarAdd
	scalarXor
	scalarNontemporal
)

const (
	movsb = iota
	movsbBack
	movsq
	movsqBack
	stosb
	stosq
)

const (
	vectorLoad = iota
	vectorSilent
	vectorUnaligned
	vectorUnalignedFloat
	vectorAligned
	vectorAlignedFloat
	vectorNontemporal
)

const (
	atomicXchg = iota
	atomicCmpxchg
	atomicXadd
	atomicBts
	counterAdd // from here on: of a counter
	counterInc
	counterXadd
	counterXadd32
	counterCmpxchg8b
	counterOr
	counterBts
)

var formNames = [kindCount][]string{
	scalar:   {"store", "silent store", "add", "xor", "movnti"},
	stringOp: {"movsb", "movsb backwards", "movsq", "movsq backwards", "stosb", "stosq"},
	sse:      vectorNames,
	atomic: {"xchg", "cmpxchg", "xadd", "bts", "counter add", "counter inc", "counter xadd", "counter 32-bit xadd",
		"counter cmpxchg8b", "counter or", "counter bts"},
	load:     {"load"},
	avx:      vectorNames,
	evex:     vectorNames,
	atomic16: {"counter cmpxchg16b"},
}

var vectorNames = []string{"load", "silent store", "unaligned", "unaligned float", "aligned", "aligned float", "nontemporal"}

// The layout and the draws of images/lines/abi.h and program.c.
const (
	blockBytes     = 352
	stringMaxBytes = 160
	sourceBytes    = 1024

	counterSum32 = 24 // offsets within a line of counters
	counterBits  = 16

	golden    = 0x9e3779b97f4a7c15
	wordGamma = 0xd1342543de82ef95
)

const (
	drawKind = iota
	drawForm
	drawWidth
	drawSpan
	drawPlace
	drawEdge
	drawAcross
	drawValue
	drawFrom
	drawFromPlace
)

// mix is the output function of SplitMix64.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func scale(draw, n uint64) uint64 {
	high, _ := bits.Mul64(draw, n)
	return high
}

func draw(value, i uint64) uint64 { return mix(value + i*wordGamma) }

// op is one step. Addresses are offsets in the region.
type op struct {
	kind    kind
	form    int
	bytes   uint64 // of the access, or of all units of a string operation
	at      uint64
	outside bool   // from is an offset in the source
	from    uint64 // of a string move
	value   uint64 // word i of it: value + i·wordGamma
}

func (o *op) vector() bool  { return o.kind == sse || o.kind == avx || o.kind == evex }
func (o *op) stores() bool  { return o.kind != load && !(o.vector() && o.form == vectorLoad) }
func (o *op) counter() bool { return o.kind == atomic16 || o.kind == atomic && o.form >= counterAdd }

// String names the access as a human would look for it.
func (o *op) String() string {
	return fmt.Sprintf("%s %s of %d bytes", kindNames[o.kind], formNames[o.kind][o.form], o.bytes)
}

type span struct{ first, bytes uint64 }

func (s span) holds(at, bytes uint64) bool {
	return at >= s.first && at-s.first <= s.bytes && bytes <= s.bytes-(at-s.first)
}

// op derives what step (from 1) of a vCPU is.
func (o *Options) op(vcpu int, step uint64) op {
	v := mix(mix(o.Seed+uint64(vcpu+1)*golden) + step*golden)
	p := op{kind: o.Kinds.draw(draw(v, drawKind)), value: draw(v, drawValue)}
	p.form = int(scale(draw(v, drawForm), uint64(len(formNames[p.kind]))))
	s := o.span(vcpu, draw(v, drawSpan))
	width, align := draw(v, drawWidth), uint64(1)
	p.bytes = 1 << scale(width, 4)
	switch p.kind {
	case scalar:
		if p.form == scalarNontemporal {
			p.bytes = 4 << scale(width, 2)
		}
	case stringOp:
		p.bytes = 1 + scale(width, stringMaxBytes)
		if p.form == movsq || p.form == movsqBack || p.form == stosq {
			p.bytes = (p.bytes + 7) &^ 7
		}
	case sse, avx, evex:
		p.bytes = map[kind]uint64{sse: 16, avx: 32, evex: 64}[p.kind]
		if p.form >= vectorAligned {
			align = p.bytes
		}
	case atomic, atomic16:
		if p.counter() {
			p.drawCounter(o, v)
			return p
		}
		if p.form == atomicBts {
			p.bytes = 8
		}
		align = p.bytes
	}
	p.at = s.place(p.bytes, align, v)
	if p.kind == stringOp && p.form <= movsqBack {
		p.drawFrom(s, v)
	}
	return p
}

func (k Kinds) draw(d uint64) kind {
	left := scale(d, uint64(bits.OnesCount32(uint32(k))))
	for i := kind(0); ; i++ {
		if k>>i&1 == 0 {
			continue
		}
		if left == 0 {
			return i
		}
		left--
	}
}

func (o *Options) countersAt() uint64 { return (o.Pages - 1) * memory.PageSize }

func (o *Options) span(vcpu int, d uint64) span {
	data, n, v := o.countersAt(), uint64(o.VCPUs), uint64(vcpu)
	if n == 1 {
		return span{0, data}
	}
	mine := (data/blockBytes - v + n - 1) / n
	return span{(scale(d, mine)*n + v) * blockBytes, blockBytes}
}

func (s span) place(bytes, align, v uint64) uint64 {
	at, edge := s.first+scale(draw(v, drawPlace), s.bytes-bytes+1), draw(v, drawEdge)
	if align > 1 {
		if at &^= align - 1; at < s.first {
			at += align
		}
		return at
	}
	if edge&4 != 0 {
		return at
	}
	unit := uint64(lineBytes)
	if edge&3 == 0 {
		unit = memory.PageSize
	}
	if across := at&^(unit-1) + unit - 1 - scale(draw(v, drawAcross), bytes); s.holds(across, bytes) {
		return across
	}
	return at
}

func (o *op) drawFrom(s span, v uint64) {
	choice, d := draw(v, drawFrom), draw(v, drawFromPlace)
	if o.outside = choice&1 != 0; o.outside {
		o.from = scale(d, sourceBytes-o.bytes+1)
		return
	}
	o.from = s.first + scale(d, s.bytes-o.bytes+1)
	if near := o.at - o.bytes + scale(d, 2*o.bytes); choice&2 != 0 && s.holds(near, o.bytes) {
		o.from = near
	}
}

func (o *op) drawCounter(opts *Options, v uint64) {
	o.bytes, o.at = 8, opts.countersAt()+scale(draw(v, drawPlace), pageLines)*lineBytes
	switch {
	case o.kind == atomic16:
		o.bytes = 16
	case o.form == counterXadd32:
		o.bytes = 4
		o.at += counterSum32
	case o.form == counterOr || o.form == counterBts:
		o.at += counterBits
	}
}
