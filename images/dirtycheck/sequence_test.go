package dirtycheck

import (
	"fmt"
	"math/bits"
	"slices"
	"testing"
)

func TestValueNamesItsStep(t *testing.T) {
	s := newStream(99, 3, 10, Random)
	for _, step := range []uint64{1, 2, 3, 1 << 20, 1<<40 + 12345, 1<<63 - 1} {
		if got := s.step(s.value(step)); got != step {
			t.Errorf("step %d came back as %d", step, got)
		}
	}
}

// The scattered ranks have to stay a permutation, or some line would never be written.
func TestZipfReachesEveryLine(t *testing.T) {
	for _, n := range []uint64{1, 2, 3, 7, 8, 100, 1000, 1023, 1024, 1025} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			s := newStream(1, 0, n, Zipf)
			hits := make([]uint64, n)
			const steps = 300000
			for step := uint64(1); step <= steps; step++ {
				hits[s.line(s.value(step), step)]++
			}
			for line, h := range hits {
				if h == 0 {
					t.Errorf("line %d was never written", line)
				}
			}
			if n < 3 {
				return // one octave: all lines alike
			}
			// Rank 0 is an octave of its own, and hotter than any other.
			if want := steps / (uint64(bits.Len64(n+1)) - 1); hits[0] < want*9/10 || hits[0] > want*11/10 ||
				hits[0] != slices.Max(hits) {
				t.Errorf("the hottest line was written %d times, want about %d", hits[0], want)
			}
		})
	}
}

// A pass over the working set meets each line once.
func TestPassesArePermutations(t *testing.T) {
	for _, p := range []Pattern{Seq, Stride, Cluster} {
		for _, n := range []uint64{1, 2, 15, 16, 17, 63, 64, 65, 640, 1000, 4096} {
			s := newStream(1, 0, n, p)
			hits := make([]int, n)
			for step := uint64(1); step <= 2*n; step++ {
				hits[s.line(s.value(step), step)]++
			}
			for line, h := range hits {
				if h != 2 {
					t.Errorf("%v: line %d of %d was written %d times in two passes", p, line, n, h)
				}
			}
		}
	}
}

// What the patterns promise to who predicts them: a constant step, and neighbours within a cluster in no order.
func TestStrideAndCluster(t *testing.T) {
	const n = 4096
	line := func(p Pattern, step uint64) int64 {
		s := newStream(1, 0, n, p)
		return int64(s.line(s.value(step), step))
	}
	for step := uint64(1); step < n/strideLines; step++ {
		if by := line(Stride, step+1) - line(Stride, step); by != strideLines {
			t.Errorf("step %d of stride is of %d lines", step, by)
		}
	}
	var next int
	for step := uint64(1); step <= n; step++ {
		if (step-1)%clusterLines == 0 {
			continue
		}
		before, now := line(Cluster, step-1), line(Cluster, step)
		if before/clusterLines != now/clusterLines {
			t.Errorf("step %d leaves its cluster", step)
		}
		if now == before+1 {
			next++
		}
	}
	if next > n/16 {
		t.Errorf("%d of %d steps go to the next line: that is nearly in order", next, n)
	}
}

func TestRandomIsEven(t *testing.T) {
	const n, steps = 100, 100000
	s := newStream(1, 0, n, Random)
	var hits [n]int
	for step := uint64(1); step <= steps; step++ {
		hits[s.line(s.value(step), step)]++
	}
	for line, h := range hits {
		if h < steps/n*8/10 || h > steps/n*12/10 {
			t.Errorf("line %d was written %d times, want about %d", line, h, steps/n)
		}
	}
}

func TestPlacesOfAPageAreDistinct(t *testing.T) {
	for lines := 1; lines <= pageLines; lines++ {
		p := Params{LinesPerPage: lines}
		for _, page := range []uint64{0, 1, 63, 64, 1000001} {
			var used uint64
			for k := range lines {
				used |= 1 << p.place(page, k)
			}
			if bits.OnesCount64(used) != lines {
				t.Errorf("%d lines of page %d share places: %#x", lines, page, used)
			}
		}
	}
}

// Ten billion steps over a million lines: the replay has to end when every line was met.
func BenchmarkReplay(b *testing.B) {
	for _, p := range []Pattern{Seq, Random, Zipf, Stride, Cluster} {
		b.Run(p.String(), func(b *testing.B) {
			for b.Loop() {
				w := writer{stream: newStream(1, 0, 1<<20, p), VCPU: VCPU{Lines: 1 << 20, Done: 1e10, Next: 1e10}}
				w.replay()
			}
		})
	}
}
