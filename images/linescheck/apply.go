package linescheck

import (
	"encoding/binary"
	"slices"
)

// source is the constant memory outside of the region that string moves read.
var source = func() []byte {
	var b []byte
	for i := range uint64(sourceBytes / 8) {
		b = binary.LittleEndian.AppendUint64(b, mix(i*golden))
	}
	return b
}()

func fold(loaded, word uint64) uint64 { return mix(loaded^word) + golden }

// get and put are little-endian words of 1 to 8 bytes.
func get(b []byte) uint64 {
	var w [8]byte
	copy(w[:], b)
	return binary.LittleEndian.Uint64(w[:])
}

func put(b []byte, v uint64) {
	var w [8]byte
	binary.LittleEndian.PutUint64(w[:], v)
	copy(b, w[:])
}

// apply does to the region what the instruction does, and returns what it loaded, folded into loaded.
func (o *op) apply(region []byte, loaded uint64) uint64 {
	to := region[o.at : o.at+o.bytes]
	switch o.kind {
	case scalar:
		o.scalar(to)
	case stringOp:
		o.string(region)
	case load:
		return fold(loaded, get(to))
	case atomic:
		return o.atomic(to, loaded)
	case atomic16:
		put(to[:8], get(to[:8])+o.value)
		put(to[8:], get(to[8:])+o.value+wordGamma)
	default:
		return o.move(to, loaded)
	}
	return loaded
}

func (o *op) scalar(to []byte) {
	switch o.form {
	case scalarStore, scalarNontemporal:
		put(to, o.value)
	case scalarAdd:
		put(to, get(to)+o.value)
	case scalarXor:
		put(to, get(to)^o.value)
	}
}

// string goes unit by unit: where source and destination overlap, a unit reads what an earlier one wrote.
func (o *op) string(region []byte) {
	unit := uint64(1)
	if o.form == movsq || o.form == movsqBack || o.form == stosq {
		unit = 8
	}
	var units []uint64 // offsets
	for i := uint64(0); i < o.bytes; i += unit {
		units = append(units, i)
	}
	if o.form == movsbBack || o.form == movsqBack {
		slices.Reverse(units)
	}
	from := region
	if o.outside {
		from = source
	}
	for _, i := range units {
		to := region[o.at+i : o.at+i+unit]
		if o.form >= stosb {
			put(to, o.value)
		} else {
			put(to, get(from[o.from+i:o.from+i+unit]))
		}
	}
}

func (o *op) move(to []byte, loaded uint64) uint64 {
	for i := uint64(0); i < o.bytes; i += 8 {
		switch o.form {
		case vectorLoad:
			loaded = fold(loaded, get(to[i:i+8]))
		case vectorSilent:
		default:
			put(to[i:i+8], o.value+i/8*wordGamma)
		}
	}
	return loaded
}

func (o *op) atomic(to []byte, loaded uint64) uint64 {
	old := get(to)
	switch o.form {
	case atomicXchg, atomicCmpxchg:
		put(to, o.value)
		return fold(loaded, old)
	case atomicXadd:
		put(to, old+o.value)
		return fold(loaded, old)
	case atomicBts, counterOr, counterBts:
		put(to, old|1<<(o.value&63))
	case counterInc:
		put(to, old+1)
	default:
		put(to, old+o.value)
	}
	return loaded
}
