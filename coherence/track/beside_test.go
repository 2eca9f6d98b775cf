package track

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/fineline-vmm/fineline/memory"
)

// TestHarvestBesideStores: a copy that is kept up by the lines of each harvest, taken while a guest and the VMM store, is
// equal to memory when all is quiet and harvested once more.
func TestHarvestBesideStores(t *testing.T) {
	for _, mode := range []Mode{Diff, Stores, Homed} {
		t.Run(mode.String(), func(t *testing.T) {
			g := newTestGuest(t, Options{})
			const sizeBytes = 4 * memory.PageSize
			c := g.context(ContextOptions{Mode: mode}, Range{0, sizeBytes})
			must(t, c.Arm())
			twin, now := make([]byte, sizeBytes), make([]byte, sizeBytes)
			keepUp := func() {
				if _, err := c.Harvest(0, func(p Page) {
					for line := range memory.GPA(LinesPerPage) {
						if p.Lines>>line&1 != 0 {
							at := p.GPA + line*LineBytes
							must(t, g.mem.ReadAt(at, twin[at:at+LineBytes]))
						}
					}
				}); err != nil {
					t.Error(err)
				}
			}
			for burst := range 250 {
				var stores sync.WaitGroup
				for cpu := range 2 {
					stores.Go(func() {
						r := rand.New(rand.NewPCG(uint64(burst), uint64(cpu)))
						for i := range 20 {
							// Never twice: Diff promises nothing about a line that is written back.
							value := binary.LittleEndian.AppendUint64(nil, uint64(1+burst)<<16|uint64(cpu)<<8|uint64(i))
							at := memory.GPA(r.IntN(sizeBytes-8)) &^ 7
							if r.IntN(4) == 0 {
								_ = g.mem.WriteAt(at, value)
							} else {
								g.store(cpu, at, value)
							}
						}
					})
				}
				quiet := make(chan struct{})
				go func() { stores.Wait(); close(quiet) }()
				for running := true; running; {
					select {
					case <-quiet:
						running = false
					default:
					}
					keepUp()
				}
				must(t, g.mem.ReadAt(0, now))
				if !bytes.Equal(now, twin) {
					t.Fatalf("burst %d: the copy differs from memory", burst)
				}
			}
		})
	}
}
