package diff

import "golang.org/x/sys/cpu"

// Kernels is one of the sets of kernels, by the instructions that it uses. All give the same
// results. The functions of the package use the best that this processor and its operating
// system allow; the others are for tests and benchmarks.
type Kernels uint8

const (
	plain  Kernels = iota // Go
	avx2                  // AVX2, BMI1, PCLMULQDQ, POPCNT
	avx512                // the same, and AVX-512 F, BW, DQ, VPCLMULQDQ
)

// best is what the package's functions use.
var best = Available()[0]

// Available returns the sets that can run here, the best first.
func Available() []Kernels {
	sets := []Kernels{plain}
	x := &cpu.X86 // the AVX bits are set only if XCR0 says that the system saves the registers
	if x.HasAVX2 && x.HasBMI1 && x.HasPCLMULQDQ && x.HasPOPCNT {
		sets = append([]Kernels{avx2}, sets...)
		if x.HasAVX512F && x.HasAVX512BW && x.HasAVX512DQ && x.HasAVX512VPCLMULQDQ {
			sets = append([]Kernels{avx512}, sets...)
		}
	}
	return sets
}

// Level is the name of the set in use: avx512, avx2 or go.
func Level() string { return best.String() }

// String is the set's name.
func (k Kernels) String() string {
	switch k {
	case avx512:
		return "avx512"
	case avx2:
		return "avx2"
	default:
		return "go"
	}
}

// Mask is the package's Mask.
func (k Kernels) Mask(page, twin []byte) uint64 {
	p, t := first(page), first(twin)
	switch k { // direct calls, since arguments of an indirect one escape to the heap
	case avx512:
		return maskAVX512(p, t)
	case avx2:
		return maskAVX2(p, t)
	default:
		return maskGo(p, t)
	}
}

// NonZero is the package's NonZero.
func (k Kernels) NonZero(page []byte) uint64 {
	if k == plain {
		return nonZeroGo(first(page))
	}
	return nonZeroAVX2(first(page))
}

// Update is the package's Update.
func (k Kernels) Update(page, twin []byte) uint64 {
	p, t := first(page), first(twin)
	switch k {
	case avx512:
		return updateAVX512(p, t)
	case avx2:
		return updateAVX2(p, t)
	default:
		return updateGo(p, t)
	}
}

// UpdateCount is the package's UpdateCount.
func (k Kernels) UpdateCount(page, twin []byte) (mask uint64, changedBytes int) {
	p, t := first(page), first(twin)
	switch k {
	case avx512:
		return updateCountAVX512(p, t)
	case avx2:
		return updateCountAVX2(p, t)
	default:
		return updateCountGo(p, t)
	}
}

// UpdateHash is Key.UpdateHash.
func (k Kernels) UpdateHash(key *Key, page []byte, sums *[PageLines]uint64) uint64 {
	p := first(page)
	switch k {
	case avx512:
		return updateHashAVX512(p, &key.words, sums)
	case avx2:
		return updateHashAVX2(p, &key.words, sums)
	default:
		return updateHashGo(p, key, sums)
	}
}
