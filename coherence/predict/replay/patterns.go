package replay

import (
	"math/rand/v2"
	"slices"
)

// ramPages is the RAM of the patterns below: 512 MiB.
const ramPages = 1 << 17

// Patterns returns one trace of each pattern. The same seed gives the same traces.
func Patterns(seed uint64) []Trace {
	random := rand.New(rand.NewPCG(seed, 0))
	traces := []Trace{
		one("sequential", run(1000, 1, 8192)),
		one("reverse", run(100_000, -1, 8192)),
		one("stride 3", run(1000, 3, 8192)),
		one("stride 17", run(1000, 17, 6000)),
		one("stride -64", run(ramPages-1, -64, 2000)),
		one("strides", slices.Concat(run(5, 2, 2000), run(20_000, 7, 2000), run(90_000, -5, 2000), run(7, 129, 1000))),
		{Name: "4 sequential", Pages: ramPages, VCPUs: [][]uint64{
			run(1000, 1, 4096), run(30_000, 1, 4096), run(60_000, 1, 4096), run(110_000, 1, 4096)}},
		{Name: "4 strides", Pages: ramPages, VCPUs: [][]uint64{
			run(1000, 3, 4096), run(30_000, -5, 4096), run(60_000, 2, 4096), run(70_000, 11, 4096)}},
		one("clusters of 64", clusters(random, 96, 64)),
		one("clusters of 256", clusters(random, 32, 256)),
		one("clusters of 2048", clusters(random, 6, 2048)),
		{Name: "4 in clusters", Pages: ramPages, VCPUs: [][]uint64{
			clusters(random, 8, 512), clusters(random, 8, 512), clusters(random, 8, 512), clusters(random, 8, 512)}},
		one("periodic", periodic(5000, []int64{1, 1, 6, -3, 20}, 6000)),
		one("random", uniform(random, ramPages, 12_000)),
		{Name: "4 random", Pages: ramPages, VCPUs: [][]uint64{
			uniform(random, ramPages, 4000), uniform(random, ramPages, 4000), uniform(random, ramPages, 4000), uniform(random, ramPages, 4000)}},
		one("zipf", zipf(random, ramPages, 60_000)),
	}
	return append(traces, tableTraces(random)...)
}

func one(name string, accesses []uint64) Trace {
	return Trace{Name: name, Pages: ramPages, VCPUs: [][]uint64{accesses}}
}

// run is n pages from first at a distance of stride.
func run(first uint64, stride int64, n int) []uint64 {
	return periodic(first, []int64{stride}, n)
}

// periodic is n pages from first whose distances repeat.
func periodic(first uint64, distances []int64, n int) []uint64 {
	pages := make([]uint64, n)
	for i := range pages {
		pages[i] = first
		first += uint64(distances[i%len(distances)])
	}
	return pages
}

// clusters goes to count places, and at each touches pages at random among size, twice as
// many times as there are: about 86 % of them are touched.
func clusters(random *rand.Rand, count int, size uint64) []uint64 {
	var pages []uint64
	for range count {
		first := random.Uint64N(ramPages - size)
		for range 2 * size {
			pages = append(pages, first+random.Uint64N(size))
		}
	}
	return pages
}

func uniform(random *rand.Rand, limit uint64, n int) []uint64 {
	pages := make([]uint64, n)
	for i := range pages {
		pages[i] = random.Uint64N(limit)
	}
	return pages
}

// zipf touches pages that lie anywhere, some of them often.
func zipf(random *rand.Rand, limit uint64, n int) []uint64 {
	place := random.Perm(int(limit))
	z := rand.NewZipf(random, 1.1, 1, limit-1)
	pages := make([]uint64, n)
	for i := range pages {
		pages[i] = uint64(place[z.Uint64()])
	}
	return pages
}
