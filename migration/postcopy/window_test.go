package postcopy

import (
	"math/rand/v2"
	"testing"

	"github.com/fineline-vmm/fineline/coherence/predict"
	"github.com/fineline-vmm/fineline/memory"
)

// touchAll has a Guesser see the pages of a guest that wants them in order, and returns how many it had to wait
// for. What is asked for is there when the guest comes to it.
func touchAll(t *testing.T, g *Guesser, pages []uint64) (misses int) {
	t.Helper()
	there := map[uint64]bool{}
	wanted := func(page uint64) bool { return !there[page] }
	for _, page := range pages {
		if there[page] {
			continue
		}
		misses++
		there[page] = true
		g.miss(page, wanted)
		for _, next := range g.chosen {
			there[next] = true
		}
	}
	return misses
}

func newTestGuesser(t *testing.T, name string) *Guesser {
	t.Helper()
	g, err := NewGuesser(name, []memory.Region{{SizeBytes: 1 << 32}})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// TestWindowOpens: who is right is believed more and more.
func TestWindowOpens(t *testing.T) {
	for _, stride := range []uint64{1, 3, 17} {
		var pages []uint64
		for i := range uint64(4096) {
			pages = append(pages, i*stride)
		}
		g := newTestGuesser(t, "auto")
		misses := touchAll(t, g, pages)
		if misses > len(pages)/20 {
			t.Errorf("stride %d: %d misses of %d pages", stride, misses, len(pages))
		}
		if g.window.size < maxWindow/2 {
			t.Errorf("stride %d: window of %d", stride, g.window.size)
		}
	}
}

// TestClusters: pages of one neighbourhood after the other, at random in it: at most a fifth of them is waited for.
func TestClusters(t *testing.T) {
	for _, size := range []int{16, 64, 256} {
		rnd := rand.New(rand.NewPCG(1, uint64(size)))
		var pages []uint64
		for _, cluster := range rnd.Perm(100) {
			for _, i := range rnd.Perm(size) {
				pages = append(pages, uint64(cluster)*1024+uint64(i))
			}
		}
		if misses := touchAll(t, newTestGuesser(t, "auto"), pages); misses > len(pages)/5 {
			t.Errorf("clusters of %d: %d misses of %d pages", size, misses, len(pages))
		}
	}
}

// wrong names pages that nobody wants.
type wrong struct{ next uint64 }

func (w *wrong) Miss(_ uint64, dst []uint64, n int) []uint64 {
	for range n {
		w.next++
		dst = append(dst, 1<<30+w.next)
	}
	return dst
}

func (w *wrong) Hit(uint64, []uint64, int) []uint64 { return nil }
func (w *wrong) Arrived(uint64, []byte)             {}

var _ predict.Predictor = (*wrong)(nil)

// TestWindowCloses: who is wrong is believed little, and what is remembered of him is bounded.
func TestWindowCloses(t *testing.T) {
	g := &Guesser{pred: &wrong{}, window: newWindow()}
	asked := 0
	for page := range uint64(10000) {
		if g.miss(page, func(uint64) bool { return true }) {
			t.Fatal("a page was named")
		}
		asked += len(g.chosen)
	}
	if asked > 10010*minWindow {
		t.Errorf("%d pages asked for", asked)
	}
	if n := len(g.window.named); n > rememberedPages {
		t.Errorf("%d pages remembered", n)
	}
}
