package diff

import (
	"encoding/binary"
	"math/big"
	"testing"
)

// refSum is the definition with integers for polynomials: the sum of the products of words and key
// words, modulo x^64 + x^4 + x^3 + x + 1.
func refSum(key *Key, line []byte) uint64 {
	sum := new(big.Int)
	for i, k := range key.words {
		word := binary.LittleEndian.Uint64(line[8*i:])
		for bit := range 64 {
			if word>>bit&1 != 0 {
				product := new(big.Int).SetUint64(k)
				sum.Xor(sum, product.Lsh(product, uint(bit)))
			}
		}
	}
	modulus := new(big.Int).SetBit(big.NewInt(0x1b), 64, 1)
	for sum.BitLen() > 64 {
		sum.Xor(sum, new(big.Int).Lsh(modulus, uint(sum.BitLen()-65)))
	}
	return sum.Uint64()
}

func TestUpdateHash(t *testing.T) {
	r := random(t)
	all, key := pairs(r), KeyFromSeed(r.Uint64())
	eachSet(t, func(t *testing.T, k Kernels) {
		for i, p := range all {
			var sums [PageLines]uint64
			twinNonZero := k.NonZero(p.twin())
			if got := k.UpdateHash(key, p.twin(), &sums); got != twinNonZero {
				t.Errorf("%s: new sums: mask %#x, want that of bytes that are not zero, %#x", p.name, got, twinNonZero)
			}
			if got, want := k.UpdateHash(key, p.page(), &sums), refMask(p.page(), p.twin()); got != want {
				t.Errorf("%s: mask %#x, want %#x", p.name, got, want)
			}
			if i%16 != 0 {
				continue // the reference is slow
			}
			for line := range PageLines {
				if want := refSum(key, p.page()[line*LineBytes:][:LineBytes]); sums[line] != want {
					t.Errorf("%s: sum %#x of line %d, want %#x", p.name, sums[line], line, want)
				}
			}
		}
	})
}

// TestHashExtremes: words and keys of all ones have the longest carries of the reduction.
func TestHashExtremes(t *testing.T) {
	ones := [keyWords]uint64{}
	top := [keyWords]uint64{}
	for i := range ones {
		ones[i], top[i] = ^uint64(0), 1<<63
	}
	page := make([]byte, PageBytes)
	for i := range PageBytes / 8 {
		binary.LittleEndian.PutUint64(page[8*i:], ^uint64(0)<<(i%64)) // as many words as bits
	}
	eachSet(t, func(t *testing.T, k Kernels) {
		for _, key := range []*Key{newKey(ones), newKey(top), newKey([keyWords]uint64{7: 1 << 63})} {
			var sums [PageLines]uint64
			k.UpdateHash(key, page, &sums)
			for line := range PageLines {
				if want := refSum(key, page[line*LineBytes:][:LineBytes]); sums[line] != want {
					t.Errorf("key %#x: sum %#x of line %d, want %#x", key.words, sums[line], line, want)
				}
			}
		}
	})
}

// TestHashIsLinear: the sum of a difference is the difference of the sums; a zero line's is 0.
func TestHashIsLinear(t *testing.T) {
	r := random(t)
	a, b, both := fill(r, make([]byte, PageBytes)), fill(r, make([]byte, PageBytes)), make([]byte, PageBytes)
	for i := range both {
		both[i] = a[i] ^ b[i]
	}
	eachSet(t, func(t *testing.T, k Kernels) {
		key := NewKey()
		var sumsA, sumsB, sumsBoth, zero [PageLines]uint64
		k.UpdateHash(key, a, &sumsA)
		k.UpdateHash(key, b, &sumsB)
		k.UpdateHash(key, both, &sumsBoth)
		for i := range sumsBoth {
			if sumsBoth[i] != sumsA[i]^sumsB[i] {
				t.Errorf("line %d: %#x, want %#x", i, sumsBoth[i], sumsA[i]^sumsB[i])
			}
		}
		if mask := k.UpdateHash(key, make([]byte, PageBytes), &zero); mask != 0 || zero != [PageLines]uint64{} {
			t.Errorf("a page of zeros: mask %#x, sums %#x", mask, zero)
		}
		if mask := k.UpdateHash(key, make([]byte, PageBytes), &sumsA); mask != ^uint64(0) || sumsA != [PageLines]uint64{} {
			t.Errorf("back to zeros: mask %#x, sums %#x", mask, sumsA)
		}
	})
}

func TestKeys(t *testing.T) {
	if a, b := KeyFromSeed(1), KeyFromSeed(1); a.words != b.words {
		t.Error("one seed, two keys")
	}
	seen := map[uint64]bool{}
	for _, k := range []*Key{NewKey(), NewKey(), KeyFromSeed(1), KeyFromSeed(2)} {
		for _, word := range k.words {
			if word == 0 || seen[word] {
				t.Errorf("key word %#x is zero or was seen before", word) // by chance: once in 2^54 runs
			}
			seen[word] = true
		}
	}
	page, sums := make([]byte, PageBytes), [PageLines]uint64{}
	page[0] = 1
	k := KeyFromSeed(3)
	if k.Hash(page, &sums); sums[0] != k.words[0] {
		t.Errorf("Hash of x^0 in the first word is %#x, want the key's, %#x", sums[0], k.words[0])
	}
	if mask := k.UpdateHash(page, &sums); mask != 0 {
		t.Errorf("UpdateHash after Hash returns %#x", mask)
	}
}
