package diff

import (
	"bytes"
	"math/bits"
	"testing"
)

// pageFrom repeats data until a page is full.
func pageFrom(data []byte) []byte {
	if len(data) == 0 {
		data = []byte{0}
	}
	return bytes.Repeat(data, PageBytes/len(data)+1)[:PageBytes:PageBytes]
}

// FuzzScatter: the mask and the bytes are a peer's.
func FuzzScatter(f *testing.F) {
	f.Add(uint64(1), []byte("short"))
	f.Add(^uint64(0), make([]byte, PageBytes))
	f.Add(uint64(1<<63), make([]byte, LineBytes))
	f.Fuzz(func(t *testing.T, mask uint64, src []byte) {
		for _, k := range Available() {
			page := bytes.Repeat([]byte{0xa5}, PageBytes)
			n, err := k.Scatter(page, mask, src)
			want := bits.OnesCount64(mask) * LineBytes
			if (err == nil) != (len(src) >= want) || err == nil && n != want || err != nil && n != 0 {
				t.Fatalf("%s: mask %#x, %d bytes: took %d, %v", k, mask, len(src), n, err)
			}
			back := make([]byte, n)
			if err == nil && (k.Gather(back, page, mask) != n || !bytes.Equal(back, src[:n])) {
				t.Fatalf("%s: mask %#x: what Gather takes is not what Scatter put", k, mask)
			}
			if rest := make([]byte, PageBytes); err != nil && k.Gather(rest, page, ^uint64(0)) == PageBytes &&
				bytes.Count(rest, []byte{0xa5}) != PageBytes {
				t.Fatalf("%s: mask %#x: a failed Scatter has changed the page", k, mask)
			}
		}
	})
}

// FuzzKernels: all sets say what the references say.
func FuzzKernels(f *testing.F) {
	f.Add([]byte("a page"), []byte("its twin"), uint16(0), uint64(1))
	f.Add([]byte{0}, []byte{0}, uint16(PageBytes-1), uint64(2))
	f.Fuzz(func(t *testing.T, a, b []byte, flip uint16, seed uint64) {
		page, base := pageFrom(a), pageFrom(b)
		page[int(flip)%PageBytes] ^= byte(flip >> 8)
		mask, changed, key := refMask(page, base), refChanged(page, base), KeyFromSeed(seed)
		nonZero := refMask(page, make([]byte, PageBytes))
		var wantSums [PageLines]uint64
		plain.UpdateHash(key, page, &wantSums)
		for _, k := range Available() {
			var sums [PageLines]uint64
			k.UpdateHash(key, base, &sums)
			if k.Mask(page, base) != mask || k.NonZero(page) != nonZero || k.UpdateHash(key, page, &sums) != mask || sums != wantSums {
				t.Fatalf("%s: mask %#x, want %#x", k, k.Mask(page, base), mask)
			}
			twin, counted := bytes.Clone(base), bytes.Clone(base)
			gotCountMask, got := k.UpdateCount(page, counted)
			if k.Update(page, twin) != mask || gotCountMask != mask || got != changed || !bytes.Equal(twin, page) || !bytes.Equal(counted, page) {
				t.Fatalf("%s: an update went wrong: %d bytes, want %d", k, got, changed)
			}
		}
	})
}
