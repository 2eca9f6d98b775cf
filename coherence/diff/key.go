package diff

import (
	"crypto/rand"
	"encoding/binary"
	mathrand "math/rand/v2"
)

const keyWords = LineBytes / 8

// Key is the secret of a keyed hash of lines. It never changes, and may be used by many at once.
// Neither it nor any sum may become known to whoever writes the pages.
type Key struct {
	words  [keyWords]uint64
	tables [keyWords]table // for the kernels in Go
}

// NewKey returns a key from the system's random source.
func NewKey() *Key {
	var raw [LineBytes]byte
	_, _ = rand.Read(raw[:]) // never fails, by its documentation
	var words [keyWords]uint64
	for i := range words {
		words[i] = binary.LittleEndian.Uint64(raw[8*i:])
	}
	return newKey(words)
}

// KeyFromSeed returns a key that anyone can compute: for tests that must be repeatable.
func KeyFromSeed(seed uint64) *Key {
	random := mathrand.New(mathrand.NewPCG(seed, 0))
	var words [keyWords]uint64
	for i := range words {
		words[i] = random.Uint64()
	}
	return newKey(words)
}

func newKey(words [keyWords]uint64) *Key {
	k := &Key{words: words}
	for i, word := range words {
		k.tables[i] = newTable(word)
	}
	return k
}

// UpdateHash writes the sum of each line of page to sums, and returns the lines whose sum differs
// from the one that was there. A byte of page is read once, as in Update. The sum of a line of
// zeros is 0, so that new sums are those of a page of zeros.
func (k *Key) UpdateHash(page []byte, sums *[PageLines]uint64) (mask uint64) {
	return best.UpdateHash(k, page, sums)
}

// Hash writes the sum of each line of page to sums.
func (k *Key) Hash(page []byte, sums *[PageLines]uint64) {
	// New memory is written before UpdateHash reads it: else a page of zeros is mapped first, and to put another in its place
	// takes a second fault and interrupts every CPU of the process: 22 us in place of 1.5 beside a running guest.
	sums[0] = 0
	best.UpdateHash(k, page, sums)
}

// table[i][n] is the product of a key's word and n·x^4i in GF(2^64).
type table [16][16]uint64

func newTable(word uint64) (t table) {
	for i := range t {
		for bit := 1; bit < 16; bit *= 2 {
			for n := range bit {
				t[i][bit+n] = t[i][n] ^ word
			}
			word = timesX(word)
		}
	}
	return t
}

// polynomial: the field is GF(2)[x] modulo x^64 + x^4 + x^3 + x + 1, so that x^64 = 0x1b.
const polynomial = 0x1b

func timesX(a uint64) uint64 { return a<<1 ^ -(a>>63)&polynomial }

// times is unrolled, which makes it twice as fast. Tables of 8 bits would halve the loads and
// need 128 KiB, more than the first cache has: no faster.
func (t *table) times(w uint64) uint64 {
	return t[0][w&15] ^ t[1][w>>4&15] ^ t[2][w>>8&15] ^ t[3][w>>12&15] ^
		t[4][w>>16&15] ^ t[5][w>>20&15] ^ t[6][w>>24&15] ^ t[7][w>>28&15] ^
		t[8][w>>32&15] ^ t[9][w>>36&15] ^ t[10][w>>40&15] ^ t[11][w>>44&15] ^
		t[12][w>>48&15] ^ t[13][w>>52&15] ^ t[14][w>>56&15] ^ t[15][w>>60]
}
