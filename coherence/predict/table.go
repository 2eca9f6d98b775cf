package predict

import "encoding/binary"

// A page-table page of x86-64 has 512 entries of 8 bytes at every level: Intel SDM vol. 3, "4-Level
// Paging and 5-Level Paging".
const (
	entries = 512

	entryPresent  = 1 << 0
	entryUncached = 1<<3 | 1<<4 // PWT and PCD, not set for RAM
	entryLarge    = 1 << 7      // in a page directory and above; in a page table it is PAT
	entryAddress  = 1<<52 - 1<<12

	largePages = 512 // 2 MiB
)

const (
	// strangers bounds the words that make no sense in a page table: some, since a guest maps
	// devices and swaps pages out.
	strangers = 16
	// fewestEntries is what a table must have to be kept: of fewer there is little to foretell, and
	// data pages with one or two words that could be entries are many.
	fewestEntries = 4
)

// decode reads a page as a page-table page into target: what each entry points at, 0 for nothing, with
// largeTarget for 2 MiB. It says whether the page looks like one: nearly all words that are not
// zero are present entries which point into RAM, each to another page, and not all in
// physical order, which page numbers say already. The level is not known, and any content can
// be made to look like a table; nothing depends on it but what is predicted.
func decode(content []byte, o *Options, target *[entries]uint64) bool {
	present, odd, inOrder := 0, 0, 0
	var last uint64
	for i := range target {
		e := binary.LittleEndian.Uint64(content[8*i:])
		target[i] = 0
		if e == 0 {
			continue
		}
		t, ok := decodeEntry(e, o)
		if !ok || t == last {
			if odd++; odd > strangers {
				return false
			}
			continue
		}
		if follows(last, t) {
			inOrder++
		}
		target[i], last = t, t
		present++
	}
	return present >= fewestEntries && present > odd && inOrder <= present*3/4
}

// largeTarget marks a target of 2 MiB; page numbers are smaller.
const largeTarget = maxPage

func decodeEntry(e uint64, o *Options) (target uint64, ok bool) {
	page := e & entryAddress >> 12
	if e&entryPresent == 0 || e&entryUncached != 0 || !o.inRAM(page) {
		return 0, false
	}
	// Bits 13 to 20 of an entry that maps 2 MiB are reserved. Of 1 GiB the first part is taken.
	if e&entryLarge != 0 && page&^1%largePages == 0 {
		return page&^1 | largeTarget, true
	}
	return page, true
}

func follows(a, b uint64) bool {
	if a&largeTarget != 0 {
		return b == a+largePages
	}
	return b == a+1
}
