package diff

import (
	"bytes"
	"testing"
)

func TestLevel(t *testing.T) {
	sets := Available()
	if sets[len(sets)-1] != plain {
		t.Errorf("%v does not end with the set that runs everywhere", sets)
	}
	if Level() != sets[0].String() {
		t.Errorf("level %s, want the best of %v", Level(), sets)
	}
	t.Logf("kernels here: %v", sets)
}

func TestMasks(t *testing.T) {
	all := pairs(random(t))
	zeros := make([]byte, PageBytes)
	eachSet(t, func(t *testing.T, k Kernels) {
		for _, p := range all {
			before := bytes.Clone(p.buffer)
			if got, want := k.Mask(p.page(), p.twin()), refMask(p.page(), p.twin()); got != want {
				t.Errorf("%s: Mask %#x, want %#x", p.name, got, want)
			}
			if got, want := k.NonZero(p.page()), refMask(p.page(), zeros); got != want {
				t.Errorf("%s: NonZero %#x, want %#x", p.name, got, want)
			}
			if !bytes.Equal(p.buffer, before) {
				t.Fatalf("%s: what is only read has changed", p.name)
			}
		}
	})
}

// TestUpdate: the mask, the twin is the page, and nothing else is touched.
func TestUpdate(t *testing.T) {
	all := pairs(random(t))
	eachSet(t, func(t *testing.T, k Kernels) {
		for _, p := range all {
			checkUpdate(t, p, func(page, twin []byte) uint64 { return k.Update(page, twin) })
			checkUpdate(t, p, func(page, twin []byte) uint64 {
				changed := refChanged(page, twin)
				mask, got := k.UpdateCount(page, twin)
				if got != changed {
					t.Errorf("%s: %d bytes changed, want %d", p.name, got, changed)
				}
				return mask
			})
		}
	})
}

func checkUpdate(t *testing.T, p pair, update func(page, twin []byte) uint64) {
	t.Helper()
	want := p.clone()
	copy(want.twin(), want.page())
	wantMask := refMask(p.page(), p.twin())
	p = p.clone()
	if got := update(p.page(), p.twin()); got != wantMask {
		t.Errorf("%s: mask %#x, want %#x", p.name, got, wantMask)
	}
	if !bytes.Equal(p.buffer, want.buffer) {
		t.Errorf("%s: the twin is not the page, or something beside it has changed", p.name)
	}
	if got := update(p.page(), p.twin()); got != 0 {
		t.Errorf("%s: mask %#x of equal pages", p.name, got)
	}
}

// TestUpdateBatch: pages in any order, neighbours and the same page twice included.
func TestUpdateBatch(t *testing.T) {
	r := random(t)
	const pages = 40
	buffer, base := fill(r, make([]byte, pages*PageBytes)), make([]byte, pages*PageBytes)
	key := KeyFromSeed(r.Uint64())
	eachSet(t, func(t *testing.T, k Kernels) {
		for range 8 {
			var from, twins [][]byte
			var sums, wantSums []*[PageLines]uint64
			var want, wantHash []uint64
			twinBuffer := bytes.Clone(base)
			wantTwins := bytes.Clone(base)
			seen := make([][PageLines]uint64, 2*pages)
			at := 0
			for n := r.IntN(pages); n > 0; n-- {
				from, twins = append(from, pageOf(buffer, at)), append(twins, pageOf(twinBuffer, at))
				sums, wantSums = append(sums, &seen[at]), append(wantSums, &seen[pages+at])
				want = append(want, k.Update(pageOf(buffer, at), pageOf(wantTwins, at)))
				wantHash = append(wantHash, k.UpdateHash(key, pageOf(buffer, at), &seen[pages+at]))
				if r.IntN(2) == 0 {
					at++ // mostly a neighbour
				} else {
					at = r.IntN(pages)
				}
				at %= pages
			}
			masks, hashes := make([]uint64, len(from)), make([]uint64, len(from))
			k.UpdateBatch(from, twins, masks)
			k.UpdateHashBatch(key, from, sums, hashes)
			for i := range masks {
				if masks[i] != want[i] || hashes[i] != wantHash[i] || *sums[i] != *wantSums[i] {
					t.Errorf("page %d of %d: masks %#x and %#x, want %#x and %#x", i, len(masks), masks[i], hashes[i], want[i], wantHash[i])
				}
			}
			if !bytes.Equal(twinBuffer, wantTwins) {
				t.Error("twins of a batch differ from those of single updates")
			}
		}
	})
}

// TestWrongLengths: they are our own bugs.
func TestWrongLengths(t *testing.T) {
	page, short, long := make([]byte, PageBytes), make([]byte, PageBytes-1), make([]byte, PageBytes+1)
	key, sums := KeyFromSeed(1), &[PageLines]uint64{}
	for _, wrong := range [][]byte{nil, short, long} {
		for name, f := range map[string]func(){
			"Mask page":          func() { Mask(wrong, page) },
			"Mask twin":          func() { Mask(page, wrong) },
			"NonZero":            func() { NonZero(wrong) },
			"Update page":        func() { Update(wrong, page) },
			"Update twin":        func() { Update(page, wrong) },
			"UpdateCount page":   func() { UpdateCount(wrong, page) },
			"UpdateCount twin":   func() { UpdateCount(page, wrong) },
			"Hash":               func() { key.Hash(wrong, sums) },
			"UpdateHash":         func() { key.UpdateHash(wrong, sums) },
			"Gather page":        func() { Gather(page, wrong, 0) },
			"Scatter page":       func() { _, _ = Scatter(wrong, 0, nil) },
			"UpdateBatch page":   func() { UpdateBatch([][]byte{page, wrong}, [][]byte{page, page}, make([]uint64, 2)) },
			"UpdateBatch twin":   func() { UpdateBatch([][]byte{page, page}, [][]byte{page, wrong}, make([]uint64, 2)) },
			"UpdateBatch masks":  func() { UpdateBatch([][]byte{page}, [][]byte{page}, nil) },
			"UpdateBatch twins":  func() { UpdateBatch([][]byte{page}, nil, make([]uint64, 1)) },
			"UpdateHashBatch":    func() { key.UpdateHashBatch([][]byte{wrong}, []*[PageLines]uint64{sums}, make([]uint64, 1)) },
			"UpdateHashBatch s.": func() { key.UpdateHashBatch([][]byte{page}, nil, make([]uint64, 1)) },
		} {
			if !panics(f) {
				t.Errorf("%s of %d bytes: no panic", name, len(wrong))
			}
		}
	}
}

func panics(f func()) (yes bool) {
	defer func() { yes = recover() != nil }()
	f()
	return false
}
