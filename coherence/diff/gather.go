package diff

import (
	"fmt"
	"math/bits"
)

// Gather copies the lines of page that are in mask to dst, one after the other, and returns how
// many bytes they are. A dst that is too short is a panic.
func Gather(dst, page []byte, mask uint64) int { return best.Gather(dst, page, mask) }

// Scatter is the inverse of Gather: it copies the first bytes of src to the lines of page that
// are in mask, and returns how many. If src, which comes from a peer, is too short for the mask,
// Scatter fails and has changed nothing.
func Scatter(page []byte, mask uint64, src []byte) (int, error) {
	return best.Scatter(page, mask, src)
}

// gathered is how many bytes the lines of mask are.
func gathered(mask uint64) int { return bits.OnesCount64(mask) * LineBytes }

// Gather is the package's Gather.
func (k Kernels) Gather(dst, page []byte, mask uint64) int {
	p, n := first(page), gathered(mask)
	switch {
	case len(dst) < n:
		panic(fmt.Sprintf("diff: Gather of %d bytes into %d", n, len(dst)))
	case n == 0:
	case n == PageBytes:
		copy(dst, page)
	case k == avx512:
		gatherAVX512(&dst[0], p, mask)
	case k == avx2:
		gatherAVX2(&dst[0], p, mask)
	default:
		gatherGo(dst, page, mask)
	}
	return n
}

// Scatter is the package's Scatter.
func (k Kernels) Scatter(page []byte, mask uint64, src []byte) (int, error) {
	p, n := first(page), gathered(mask)
	switch {
	case len(src) < n:
		return 0, fmt.Errorf("diff: %d bytes for the %d lines of a mask, want %d", len(src), n/LineBytes, n)
	case n == 0:
	case n == PageBytes:
		copy(page, src)
	case k == avx512:
		scatterAVX512(p, &src[0], mask)
	case k == avx2:
		scatterAVX2(p, &src[0], mask)
	default:
		scatterGo(page, mask, src)
	}
	return n, nil
}

func gatherGo(dst, page []byte, mask uint64) {
	for ; mask != 0; mask &= mask - 1 {
		copy(dst[:LineBytes], page[bits.TrailingZeros64(mask)*LineBytes:])
		dst = dst[LineBytes:]
	}
}

func scatterGo(page []byte, mask uint64, src []byte) {
	for ; mask != 0; mask &= mask - 1 {
		copy(page[bits.TrailingZeros64(mask)*LineBytes:], src[:LineBytes])
		src = src[LineBytes:]
	}
}
