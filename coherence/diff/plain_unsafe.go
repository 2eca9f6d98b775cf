package diff

import (
	"math/bits"
	"sync/atomic"
	"unsafe"
)

// The kernels in Go: for processors without AVX2, and to say what the others must do.

type (
	lineWords [LineBytes / 8]uint64
	pageWords [PageLines]lineWords
)

// wordsOf views a page by words. They may be unaligned, as x86-64 allows.
func wordsOf(first *byte) *pageWords { return (*pageWords)(unsafe.Pointer(first)) }

// adjacent says whether next follows page in memory. Then the processor fetches it by itself, and
// a second request only costs time.
func adjacent(page, next *byte) bool {
	return uintptr(unsafe.Pointer(next))-uintptr(unsafe.Pointer(page)) == PageBytes
}

// load reads a line once: an atomic load is one that the compiler neither splits nor repeats.
func (l *lineWords) load() (copied lineWords) {
	for i := range l {
		copied[i] = atomic.LoadUint64(&l[i])
	}
	return copied
}

func maskGo(page, twin *byte) (mask uint64) {
	p, t := wordsOf(page), wordsOf(twin)
	for i := range p {
		if p[i].load() != t[i] {
			mask |= 1 << i
		}
	}
	return mask
}

func nonZeroGo(page *byte) (mask uint64) {
	p := wordsOf(page)
	for i := range p {
		if p[i].load() != (lineWords{}) {
			mask |= 1 << i
		}
	}
	return mask
}

func updateGo(page, twin *byte) (mask uint64) {
	p, t := wordsOf(page), wordsOf(twin)
	for i := range p {
		if line := p[i].load(); line != t[i] {
			t[i] = line
			mask |= 1 << i
		}
	}
	return mask
}

func updateCountGo(page, twin *byte) (mask uint64, changedBytes int) {
	p, t := wordsOf(page), wordsOf(twin)
	for i := range p {
		line := p[i].load()
		if line == t[i] {
			continue
		}
		for j, word := range line {
			changedBytes += nonZeroBytes(word ^ t[i][j])
		}
		t[i] = line
		mask |= 1 << i
	}
	return mask, changedBytes
}

// nonZeroBytes counts the bytes of a word that are not zero: bit 7 of a byte's low 7 bits plus
// 0x7f is set unless they are zero.
func nonZeroBytes(word uint64) int {
	const low7 = 0x7f7f7f7f7f7f7f7f
	return bits.OnesCount64(((word & low7) + low7 | word) &^ low7)
}

func updateHashGo(page *byte, key *Key, sums *[PageLines]uint64) (mask uint64) {
	p := wordsOf(page)
	for i := range p {
		if sum := key.sum(p[i].load()); sum != sums[i] {
			sums[i] = sum
			mask |= 1 << i
		}
	}
	return mask
}

func (k *Key) sum(line lineWords) (sum uint64) {
	for i, word := range line {
		sum ^= k.tables[i].times(word)
	}
	return sum
}
