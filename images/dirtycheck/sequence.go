package dirtycheck

import "math/bits"

// Pattern is the order in which a vCPU visits its lines. The values are the guest's.
type Pattern uint32

// The patterns of images/dirty/abi.h.
const (
	Seq Pattern = iota
	Random
	Zipf
	Stride
	Cluster
)

// String gives the name used on the guest's command line.
func (p Pattern) String() string {
	names := [...]string{"seq", "random", "zipf", "stride", "cluster"}
	if int(p) < len(names) {
		return names[p]
	}
	return "unknown"
}

// The constants of images/dirty/abi.h. The inverses are modulo 2^64.
const (
	golden    = 0x9e3779b97f4a7c15
	wordGamma = 0xd1342543de82ef95
	drawSalt  = 0x5851f42d4c957f2d
	rankPrime = 2654435761

	strideLines  = 16
	clusterLines = 64

	mixMul1, mixMul1Inverse = 0xbf58476d1ce4e5b9, 0x96de1b173f119089
	mixMul2, mixMul2Inverse = 0x94d049bb133111eb, 0x319642b2d24d8ec3
	goldenInverse           = 0xf1de83e19937733d
)

// mix is the output function of SplitMix64, a bijection.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * mixMul1
	z = (z ^ z>>27) * mixMul2
	return z ^ z>>31
}

// unmix is the inverse of mix. x ^ x>>k is undone by folding in the shifts by k and 2k: 3k exceeds 64.
func unmix(z uint64) uint64 {
	z = (z ^ z>>31 ^ z>>62) * mixMul2Inverse
	z = (z ^ z>>27 ^ z>>54) * mixMul1Inverse
	return z ^ z>>30 ^ z>>60
}

// stream is the sequence of one vCPU.
type stream struct {
	key     uint64
	lines   uint64 // at least 1
	pattern Pattern
}

func newStream(seed uint64, vcpu int, lines uint64, pattern Pattern) stream {
	return stream{key: mix(seed + uint64(vcpu+1)*golden), lines: lines, pattern: pattern}
}

// value is what step (1 is the first) writes; the words of the line derive from it.
func (s *stream) value(step uint64) uint64 { return mix(s.key + step*golden) }

// step is the inverse of value.
func (s *stream) step(value uint64) uint64 { return (unmix(value) - s.key) * goldenInverse }

// line is which of the vCPU's lines step writes; value is s.value(step), passed to be computed once.
func (s *stream) line(value, step uint64) uint64 { return s.lineOf(s.rank(value, step)) }

// rank numbers the lines as the pattern draws them: for zipf, the hottest first.
func (s *stream) rank(value, step uint64) uint64 {
	switch s.pattern {
	case Seq, Stride, Cluster:
		return (step - 1) % s.lines
	case Random:
		rank, _ := bits.Mul64(mix(value^drawSalt), s.lines)
		return rank
	default:
		return zipfRank(mix(value^drawSalt), s.lines)
	}
}

// lineOf is a permutation. That of zipf scatters the hot ranks over the pages.
func (s *stream) lineOf(rank uint64) uint64 {
	switch s.pattern {
	case Zipf:
		return rank * rankPrime % s.lines
	case Stride:
		return strideLine(rank, s.lines)
	case Cluster:
		return clusterLine(rank, s.lines)
	default:
		return rank
	}
}

// strideLine: every 16th line, then those after them, and so on.
func strideLine(rank, n uint64) uint64 {
	each, more := n/strideLines, n%strideLines // so many rows have one more
	if rank < more*(each+1) {
		return rank/(each+1) + rank%(each+1)*strideLines
	}
	rank -= more * (each + 1)
	return more + rank/each + rank%each*strideLines
}

// clusterLine: scattered clusters of neighbours, and in each all lines in an order that looks random. The
// lines that do not fill a cluster come last.
func clusterLine(rank, n uint64) uint64 {
	clusters, in := n/clusterLines, rank%clusterLines
	if rank >= clusters*clusterLines {
		return rank
	}
	cluster := rank / clusterLines * rankPrime % clusters
	key := mix(cluster ^ drawSalt)
	for range 3 { // each a bijection of six bits
		in = (in*(key&62|1) + key>>6) % clusterLines
		in ^= in >> 3
		key >>= 12
	}
	return cluster*clusterLines + in
}

// zipfRank: ranks 2^k-1 to 2^(k+1)-2 are octave k. All octaves are equally likely, and so are the ranks inside
// one. The last octave also has the ranks that do not fill one.
func zipfRank(draw, n uint64) uint64 {
	octaves := uint64(bits.Len64(n+1)) - 1
	octave, rest := bits.Mul64(draw, octaves)
	first := uint64(1)<<octave - 1
	size := first + 1
	if octave == octaves-1 {
		size = n - first
	}
	in, _ := bits.Mul64(rest, size)
	return first + in
}

// word is 64-bit word i of a line of which `bytes` bytes are written.
func word(value uint64, i, bytes int) uint64 {
	w := value + uint64(i)*wordGamma
	switch used := bytes - 8*i; {
	case used >= 8:
		return w
	case used <= 0:
		return 0
	default:
		return w & (1<<(8*used) - 1)
	}
}
