package diff

import (
	"bytes"
	"math/bits"
	"math/rand/v2"
	"testing"
)

func masks(r *rand.Rand) []uint64 {
	all := []uint64{0, 1, 1 << 63, 1<<63 | 1, ^uint64(0), ^uint64(1), ^uint64(0) >> 1, 0xaaaaaaaaaaaaaaaa}
	for i := range 64 {
		all = append(all, 1<<i, r.Uint64(), r.Uint64()&r.Uint64()&r.Uint64())
	}
	return all
}

// TestGather: the round trip through every mask, with buffers of just the right size.
func TestGather(t *testing.T) {
	r := random(t)
	all := masks(r)
	eachSet(t, func(t *testing.T, k Kernels) {
		for _, mask := range all {
			p := place("", fill(r, make([]byte, PageBytes)), fill(r, make([]byte, PageBytes)), r.IntN(64), r.IntN(64))
			var want []byte
			wantTwin := p.clone()
			for i := range PageLines {
				if mask>>i&1 != 0 {
					want = append(want, p.page()[i*LineBytes:][:LineBytes]...)
					copy(wantTwin.twin()[i*LineBytes:], p.page()[i*LineBytes:][:LineBytes])
				}
			}
			n := bits.OnesCount64(mask) * LineBytes
			room := bytes.Repeat([]byte{0x5a}, n+2*LineBytes)
			lines := room[7:][:n:n]
			if got := k.Gather(lines, p.page(), mask); got != n || !bytes.Equal(lines, want) {
				t.Errorf("mask %#x: %d bytes or other lines, want %d", mask, got, n)
			}
			if bytes.Count(room[:7], []byte{0x5a}) != 7 || bytes.Count(room[7+n:], []byte{0x5a}) != len(room)-7-n {
				t.Errorf("mask %#x: Gather has written beyond the lines", mask)
			}
			if got, err := k.Scatter(p.twin(), mask, lines); got != n || err != nil {
				t.Errorf("mask %#x: Scatter took %d bytes, want %d: %v", mask, got, n, err)
			}
			if !bytes.Equal(p.buffer, wantTwin.buffer) {
				t.Errorf("mask %#x: Scatter has not changed just the lines", mask)
			}
		}
	})
}

// TestScatterHostile: a peer's record with fewer bytes than its mask says changes nothing.
func TestScatterHostile(t *testing.T) {
	r := random(t)
	all := masks(r)
	eachSet(t, func(t *testing.T, k Kernels) {
		for _, mask := range all {
			for _, short := range []int{1, LineBytes, bits.OnesCount64(mask) * LineBytes} {
				n := bits.OnesCount64(mask)*LineBytes - short
				if n < 0 || short == 0 {
					continue
				}
				page := fill(r, make([]byte, PageBytes))
				before := bytes.Clone(page)
				if got, err := k.Scatter(page, mask, make([]byte, n)); err == nil || got != 0 || !bytes.Equal(page, before) {
					t.Errorf("mask %#x and %d bytes: took %d, error %v", mask, n, got, err)
				}
			}
		}
		dst := make([]byte, PageBytes)
		if !panics(func() { k.Gather(dst[:2*LineBytes-1], make([]byte, PageBytes), 3) }) {
			t.Error("Gather into too little: no panic")
		}
	})
}
