package acpi

import "slices"

// Resource descriptors of ACPI 6.5 §6.4.
const (
	resIRQNoFlags    = 0x22
	resIO            = 0x47
	resEnd           = 0x79
	resMemory32Fixed = 0x86
	resDword         = 0x87
	resWord          = 0x88
	resQword         = 0x8a

	spaceMemory = 0
	spaceIO     = 1
	spaceBus    = 2

	// rangeFlags: a window handed on to the bus below, both ends fixed.
	rangeFlags = 1<<2 | 1<<3
	// memoryFlags: writable, not cacheable.
	memoryFlags    = 1 << 0
	ioEntireRange  = 0b11
	ioDecode16Bits = 1
)

// resources is a resource template: the descriptors and the end tag, whose checksum 0 means none.
func resources(descriptors ...[]byte) []byte {
	return amlBuffer(append(slices.Concat(descriptors...), resEnd, 0))
}

// ioPorts is a device's own range of ports.
func ioPorts(base uint16, count byte) []byte {
	d := []byte{resIO, ioDecode16Bits}
	d = le.AppendUint16(d, base)
	d = le.AppendUint16(d, base)
	return append(d, 1, count)
}

func irq(n uint8) []byte {
	return le.AppendUint16([]byte{resIRQNoFlags}, 1<<n)
}

func memory32Fixed(base, sizeBytes uint32) []byte {
	d := []byte{resMemory32Fixed, 9, 0, memoryFlags}
	d = le.AppendUint32(d, base)
	return le.AppendUint32(d, sizeBytes)
}

// wordRange is a window of bus numbers or ports; last is inside.
func wordRange(space, flags byte, first, last uint16) []byte {
	d := []byte{resWord, 13, 0, space, rangeFlags, flags}
	for _, v := range []uint16{0, first, last, 0, last - first + 1} {
		d = le.AppendUint16(d, v)
	}
	return d
}

func dwordMemory(base, sizeBytes uint32) []byte {
	d := []byte{resDword, 23, 0, spaceMemory, rangeFlags, memoryFlags}
	for _, v := range []uint32{0, base, base + (sizeBytes - 1), 0, sizeBytes} {
		d = le.AppendUint32(d, v)
	}
	return d
}

func qwordMemory(base, sizeBytes uint64) []byte {
	d := []byte{resQword, 43, 0, spaceMemory, rangeFlags, memoryFlags}
	for _, v := range []uint64{0, base, base + (sizeBytes - 1), 0, sizeBytes} {
		d = le.AppendUint64(d, v)
	}
	return d
}
