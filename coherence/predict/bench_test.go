package predict_test

import (
	"math/rand/v2"
	"testing"

	"github.com/fineline-vmm/fineline/coherence/predict"
)

// BenchmarkMiss measures a miss on a guest of 1 GiB that does several things at a time: what it
// costs to be asked for 32 pages when streams, clusters and random pages come mixed.
func BenchmarkMiss(b *testing.B) {
	for _, name := range predict.Names() {
		b.Run(name, func(b *testing.B) {
			const ram = 1 << 18
			absent := make([]bool, ram)
			p := newPredictor(b, name, ram, func(page uint64) bool { return absent[page] })
			random := rand.New(rand.NewPCG(1, 0))
			misses := make([]uint64, 1<<14)
			for i := range misses {
				switch at := uint64(i); i % 4 {
				case 0:
					misses[i] = at
				case 1:
					misses[i] = 100_000 + at/4*7
				case 2:
					misses[i] = 200_000 + at/512*512 + random.Uint64N(512)
				default:
					misses[i] = random.Uint64N(ram)
				}
			}
			for i := range absent {
				absent[i] = random.IntN(4) > 0
			}
			for page := range uint64(64) {
				p.Arrived(page, tablePage(random, ram))
			}
			dst := make([]uint64, 0, predict.MaxPages)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				p.Miss(misses[i%len(misses)], dst, 32)
			}
		})
	}
}

func BenchmarkArrived(b *testing.B) {
	const ram = 1 << 18
	random := rand.New(rand.NewPCG(1, 0))
	noise := make([]byte, 4096)
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	for _, c := range []struct {
		name    string
		content []byte
	}{{"zeros", make([]byte, 4096)}, {"noise", noise}, {"table", tablePage(random, ram)}} {
		b.Run(c.name, func(b *testing.B) {
			p := newPredictor(b, "pagetable", ram, everything)
			for b.Loop() {
				p.Arrived(1, c.content)
			}
		})
	}
}
