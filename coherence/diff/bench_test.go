package diff

import (
	"bytes"
	"fmt"
	"testing"
)

// go test -bench . ./coherence/diff: what the notes of doc.go on speed are from. The figures
// beside their peers are made by `fineline bench diff`.

// sets of pages: what fits the first cache with its twin, the second, and neither.
var sets = []struct {
	name  string
	pages int
}{{"L1", 2}, {"L2", 64}, {"cold", 16384}}

func perPage(b *testing.B, pages, bytesEach int, f func(i int)) {
	b.SetBytes(int64(bytesEach))
	for i := range pages { // maps them
		f(i)
	}
	b.ResetTimer()
	for n := range b.N {
		f(n % pages)
	}
}

func pageOf(buffer []byte, i int) []byte { return buffer[i*PageBytes:][:PageBytes:PageBytes] }

func BenchmarkClean(b *testing.B) {
	for _, set := range sets {
		pages, twins := make([]byte, set.pages*PageBytes), make([]byte, set.pages*PageBytes)
		for i := range pages {
			pages[i], twins[i] = byte(i*7), byte(i*7)
		}
		key, sums := NewKey(), make([][PageLines]uint64, set.pages)
		run := func(name string, bytesEach int, f func(i int)) {
			b.Run(set.name+"/"+name, func(b *testing.B) { perPage(b, set.pages, bytesEach, f) })
		}
		run("bytes.Equal", 2*PageBytes, func(i int) {
			if !bytes.Equal(pageOf(pages, i), pageOf(twins, i)) {
				panic("bug")
			}
		})
		for _, k := range Available() {
			run(fmt.Sprint("mask/", k), 2*PageBytes, func(i int) { k.Mask(pageOf(pages, i), pageOf(twins, i)) })
			run(fmt.Sprint("update/", k), 2*PageBytes, func(i int) { k.Update(pageOf(pages, i), pageOf(twins, i)) })
			run(fmt.Sprint("updateCount/", k), 2*PageBytes, func(i int) { k.UpdateCount(pageOf(pages, i), pageOf(twins, i)) })
			run(fmt.Sprint("nonZero/", k), PageBytes, func(i int) { k.NonZero(pageOf(pages, i)) })
			run(fmt.Sprint("updateHash/", k), PageBytes, func(i int) { k.UpdateHash(key, pageOf(pages, i), &sums[i]) })
		}
	}
}

// BenchmarkDirty has random lines changed before each Update.
func BenchmarkDirty(b *testing.B) {
	const pages = 256
	for _, one := range []int{64, 8, 2, 1} { // one line in so many
		buffer, twins := make([]byte, pages*PageBytes), make([]byte, pages*PageBytes)
		state := uint64(1)
		flips := make([]uint64, pages)
		for i := range flips {
			for l := range PageLines {
				state = state*6364136223846793005 + 1442695040888963407
				if (state>>33)%uint64(one) == 0 {
					flips[i] |= 1 << l
				}
			}
		}
		for _, k := range Available() {
			b.Run(fmt.Sprintf("update/1in%d/%s", one, k), func(b *testing.B) {
				perPage(b, pages, 2*PageBytes, func(i int) {
					page := pageOf(buffer, i)
					for l := range PageLines {
						page[l*LineBytes] ^= byte(flips[i] >> l & 1)
					}
					k.Update(page, pageOf(twins, i))
				})
			})
		}
		var lines [PageBytes]byte
		b.Run(fmt.Sprintf("gather/1in%d", one), func(b *testing.B) {
			perPage(b, pages, PageBytes/one, func(i int) { Gather(lines[:], pageOf(buffer, i%4), flips[i]) })
		})
	}
	var lines [PageBytes]byte
	b.Run("copy", func(b *testing.B) { perPage(b, 4, PageBytes, func(i int) { copy(lines[:], pageOf(twins4, i)) }) })
}

var twins4 = make([]byte, 4*PageBytes)
