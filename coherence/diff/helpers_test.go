package diff

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"
)

// random returns a source whose seed a failed test prints.
func random(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 0))
}

func fill(r *rand.Rand, p []byte) []byte {
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

// pair is a page and its twin, each somewhere in a larger buffer, whose rest must not change.
type pair struct {
	name           string
	buffer         []byte
	pageAt, twinAt int
}

func (p pair) page() []byte { return p.buffer[p.pageAt:][:PageBytes:PageBytes] }
func (p pair) twin() []byte { return p.buffer[p.twinAt:][:PageBytes:PageBytes] }

func (p pair) clone() pair {
	p.buffer = bytes.Clone(p.buffer)
	return p
}

// place copies page and twin to offsets below 64.
func place(name string, page, twin []byte, pageOffset, twinOffset int) pair {
	const margin = 64
	p := pair{name, bytes.Repeat([]byte{0xa5}, 5*margin+2*PageBytes), margin + pageOffset, 3*margin + PageBytes + twinOffset}
	copy(p.page(), page)
	copy(p.twin(), twin)
	return p
}

// pairs are random and adversarial pages.
func pairs(r *rand.Rand) (all []pair) {
	add := func(name string, page, twin []byte) {
		all = append(all, place(name, page, twin, r.IntN(64), r.IntN(64)))
	}
	base := func() []byte { return fill(r, make([]byte, PageBytes)) }
	zeros, ones := make([]byte, PageBytes), bytes.Repeat([]byte{0xff}, PageBytes)
	add("zeros", zeros, zeros)
	add("zeros and ones", zeros, ones)
	add("ones and zeros", ones, zeros)
	for offset := range 64 {
		page := base()
		all = append(all, place("equal at an offset", page, page, offset, 63-offset))
		all = append(all, place("random at an offset", base(), page, offset, 0), place("random at an offset", base(), page, 0, offset))
	}
	changed := func(name string, change func(page []byte)) {
		twin := base()
		page := bytes.Clone(twin)
		change(page)
		add(name, page, twin)
		empty := make([]byte, PageBytes)
		change(empty)
		add(name+" of zeros", empty, zeros)
	}
	for bit := range LineBytes * 8 { // each bit of a line, in some line
		line := r.IntN(PageLines)
		changed("one bit", func(p []byte) { p[line*LineBytes+bit/8] ^= 1 << (bit % 8) })
	}
	for line := range PageLines {
		changed("first byte of a line", func(p []byte) { p[line*LineBytes]++ })
		changed("last byte of a line", func(p []byte) { p[line*LineBytes+LineBytes-1]-- })
	}
	changed("first byte", func(p []byte) { p[0] = ^p[0] })
	changed("last byte", func(p []byte) { p[PageBytes-1] = ^p[PageBytes-1] })
	changed("first and last byte", func(p []byte) { p[0]++; p[PageBytes-1]++ })
	changed("all lines", func(p []byte) {
		for i := range p {
			p[i]++
		}
	})
	changed("high lines", func(p []byte) {
		for i := PageBytes / 2; i < PageBytes; i += LineBytes {
			p[i]++
		}
	})
	changed("two halves of a line swapped", func(p []byte) {
		line := p[LineBytes*7:][:LineBytes]
		half := bytes.Clone(line[:32])
		copy(line, line[32:])
		copy(line[32:], half)
	})
	for range 64 { // random lines, random words of them
		sparse := r.Uint64() & r.Uint64()
		changed("random lines", func(p []byte) {
			for i := range PageLines {
				if sparse>>i&1 != 0 {
					p[i*LineBytes+r.IntN(LineBytes)] ^= byte(1 + r.IntN(255))
				}
			}
		})
	}
	return all
}

// eachSet runs a test for each set of kernels that this processor has.
func eachSet(t *testing.T, f func(t *testing.T, k Kernels)) {
	for _, k := range Available() {
		t.Run(k.String(), func(t *testing.T) { f(t, k) })
	}
}

// The references: slow, and as plain as what they say.

func refMask(page, twin []byte) (mask uint64) {
	for i := range PageBytes {
		if page[i] != twin[i] {
			mask |= 1 << (i / LineBytes)
		}
	}
	return mask
}

func refChanged(page, twin []byte) (n int) {
	for i := range PageBytes {
		if page[i] != twin[i] {
			n++
		}
	}
	return n
}
