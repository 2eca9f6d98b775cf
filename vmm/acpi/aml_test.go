package acpi

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// readLength decodes a PkgLength by the words of the specification, not by withLength's.
func readLength(p []byte) (length, fieldBytes int) {
	more := int(p[0] >> 6)
	if more == 0 {
		return int(p[0] & 0x3f), 1
	}
	length = int(p[0] & 0xf)
	for i := range more {
		length |= int(p[1+i]) << (4 + 8*i)
	}
	return length, 1 + more
}

func TestLengthCountsItself(t *testing.T) {
	check := func(t interface{ Fatalf(string, ...any) }, n int) {
		encoded := withLength(make([]byte, n))
		length, field := readLength(encoded)
		if length != len(encoded) || len(encoded) != field+n {
			t.Fatalf("content of %d bytes: length %d in %d bytes, encoded in %d", n, length, field, len(encoded))
		}
		if reserved := encoded[0] & 0x30; field > 1 && reserved != 0 {
			t.Fatalf("content of %d bytes: reserved bits %#x", n, reserved)
		}
	}
	for _, n := range []int{0, 1, 61, 62, 63, 64, 4092, 4093, 4094, 4095, 1<<20 - 5, 1<<20 - 4, 1<<20 - 3, 1 << 20} {
		check(t, n)
	}
	rapid.Check(t, func(t *rapid.T) { check(t, rapid.IntRange(0, 1<<16).Draw(t, "bytes")) })
}

func TestEncodings(t *testing.T) {
	tests := []struct {
		name      string
		got, want []byte
	}{
		{"zero", amlInteger(0), []byte{0}},
		{"one", amlInteger(1), []byte{1}},
		{"byte", amlInteger(0xff), []byte{0xa, 0xff}},
		{"word", amlInteger(0x100), []byte{0xb, 0, 1}},
		{"dword", amlInteger(0x10000), []byte{0xc, 0, 0, 1, 0}},
		{"qword", amlInteger(1 << 32), []byte{0xe, 0, 0, 0, 0, 1, 0, 0, 0}},
		{"PCI Express root", amlEISAID("PNP0A08"), []byte{0xc, 0x41, 0xd0, 0x0a, 0x08}},
		{"PCI root", amlEISAID("PNP0A03"), []byte{0xc, 0x41, 0xd0, 0x0a, 0x03}},
		{"letters in the number", amlEISAID("PNPABCD"), []byte{0xc, 0x41, 0xd0, 0xab, 0xcd}},
		{"buffer", amlBuffer([]byte{7, 8}), []byte{0x11, 5, 0xa, 2, 7, 8}},
		{"device", amlDevice("ABC_", amlName("_UID", amlInteger(1))), []byte("\x5b\x82\x0bABC_\x08_UID\x01")},
		{"scope", amlScope("_SB_"), []byte("\x10\x05_SB_")},
		{"ports", ioPorts(0x3f8, 8), []byte{0x47, 1, 0xf8, 3, 0xf8, 3, 1, 8}},
		{"interrupt", irq(4), []byte{0x22, 0x10, 0}},
	}
	for _, tt := range tests {
		if !bytes.Equal(tt.got, tt.want) {
			t.Errorf("%s: % x, want % x", tt.name, tt.got, tt.want)
		}
	}
}

func TestINTxAvoidsLegacyInputs(t *testing.T) {
	seen := map[uint32]int{}
	for slot := range uint8(pciSlots) {
		for pin := range uint8(intxPins) {
			gsi := INTxGSI(slot, pin)
			if gsi < 16 || gsi > 23 {
				t.Errorf("slot %d pin %d: GSI %d", slot, pin, gsi)
			}
			seen[gsi]++
		}
	}
	for gsi, n := range seen {
		if n != pciSlots*intxPins/8 {
			t.Errorf("GSI %d has %d pins: the spread is uneven", gsi, n)
		}
	}
}
