package acpi

import "slices"

// The opcodes of ACPI 6.5 §20.2 that the DSDT needs.
const (
	opZero      = 0x00
	opOne       = 0x01
	opName      = 0x08
	opByte      = 0x0a
	opWord      = 0x0b
	opDword     = 0x0c
	opQword     = 0x0e
	opScope     = 0x10
	opBuffer    = 0x11
	opPackage   = 0x12
	opExtPrefix = 0x5b
	opDevice    = 0x82
)

// amlScope opens an existing object; path has 4 characters a segment.
func amlScope(path string, terms ...[]byte) []byte {
	return append([]byte{opScope}, withLength(append([]byte(path), slices.Concat(terms...)...))...)
}

// amlDevice defines a device; name has 4 characters.
func amlDevice(name string, terms ...[]byte) []byte {
	return append([]byte{opExtPrefix, opDevice}, withLength(append([]byte(name), slices.Concat(terms...)...))...)
}

// amlName defines a named object.
func amlName(name string, value []byte) []byte {
	return append(append([]byte{opName}, name...), value...)
}

// amlInteger is the shortest encoding of v.
func amlInteger(v uint64) []byte {
	switch {
	case v == 0:
		return []byte{opZero}
	case v == 1:
		return []byte{opOne}
	case v < 1<<8:
		return []byte{opByte, byte(v)}
	case v < 1<<16:
		return le.AppendUint16([]byte{opWord}, uint16(v))
	case v < 1<<32:
		return le.AppendUint32([]byte{opDword}, uint32(v))
	default:
		return le.AppendUint64([]byte{opQword}, v)
	}
}

// amlPackage holds at most 255 elements, of which the DSDT has fewer by construction.
func amlPackage(elements ...[]byte) []byte {
	return append([]byte{opPackage}, withLength(append([]byte{byte(len(elements))}, slices.Concat(elements...)...))...)
}

// amlBuffer is a byte array.
func amlBuffer(p []byte) []byte {
	return append([]byte{opBuffer}, withLength(append(amlInteger(uint64(len(p))), p...))...)
}

// amlEISAID is a plug-and-play identifier such as PNP0A03: three letters of 5 bits, then four hex digits, big endian.
func amlEISAID(id string) []byte {
	var v uint32
	for _, c := range id[:3] {
		v = v<<5 | uint32(c-'A'+1)
	}
	for _, c := range id[3:] {
		digit := uint32(c - '0')
		if c >= 'A' {
			digit = uint32(c - 'A' + 10)
		}
		v = v<<4 | digit
	}
	p := le.AppendUint32(nil, v)
	slices.Reverse(p)
	return append([]byte{opDword}, p...)
}

// withLength puts a PkgLength (§20.2.4), which counts itself, before p: 6 bits in one byte, or 4 bits and up
// to three bytes more.
func withLength(p []byte) []byte {
	if n := len(p) + 1; n < 1<<6 {
		return append([]byte{byte(n)}, p...)
	}
	for more := 1; ; more++ {
		n := len(p) + 1 + more
		if more < 3 && n >= 1<<(4+8*more) {
			continue
		}
		head := []byte{byte(more<<6 | n&0xf)}
		for i := range more {
			head = append(head, byte(n>>(4+8*i)))
		}
		return append(head, p...)
	}
}
