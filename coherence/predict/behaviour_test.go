package predict_test

import (
	"slices"
	"testing"

	"github.com/fineline-vmm/fineline/coherence/predict"
)

// guest is a pager without a network: what is named is there at once.
type guest struct {
	p       predict.Predictor
	present map[uint64]bool
	misses  []uint64
}

func newGuest(t *testing.T, name string) *guest {
	g := &guest{present: map[uint64]bool{}}
	g.p = newPredictor(t, name, 1<<20, func(page uint64) bool { return !g.present[page] })
	return g
}

// touch touches the pages and returns what was named at the last miss, relative to it.
func (g *guest) touch(pages ...uint64) []int64 {
	var named []int64
	for _, page := range pages {
		if g.present[page] {
			continue
		}
		g.misses = append(g.misses, page)
		g.present[page] = true
		named = nil
		for _, p := range g.p.Miss(page, nil, 16) {
			g.present[p] = true
			named = append(named, int64(p-page))
		}
	}
	return named
}

func TestFirstAnswers(t *testing.T) {
	for _, c := range []struct {
		what, name string
		present    []uint64
		touch      []uint64
		want       []int64
	}{
		{"nothing is known", "stride", nil, []uint64{1000}, nil},
		{"two side by side are a stream", "stride", nil, []uint64{1000, 1001}, []int64{1, 2, 3, 4}},
		{"downwards too", "stride", nil, []uint64{1000, 999}, []int64{-1, -2, -3, -4}},
		{"two apart are none", "stride", nil, []uint64{1000, 1007}, nil},
		{"three are", "stride", nil, []uint64{1000, 1007, 1014}, []int64{7, 14, 21, 28}},
		{"streams that take turns", "stride", nil, []uint64{1000, 9000, 1007, 8989, 1014}, []int64{7, 14, 21, 28}},
		{"a gap that is there", "stride", []uint64{1014}, []uint64{1000, 1007, 1021}, []int64{7, 14, 21, 28}},
		{"a gap that is not", "stride", nil, []uint64{1000, 1007, 1021}, nil},
		{"not beyond RAM", "stride", nil, []uint64{1<<20 - 3, 1<<20 - 2}, []int64{1}},
		{"nor below", "stride", nil, []uint64{2, 1}, []int64{-1}},
		{"past what is there", "sequential", []uint64{1001, 1002}, []uint64{1000}, []int64{3}},
		{"nearest first", "around", []uint64{1001}, []uint64{1000}, []int64{-1, 2, -2, 3, -3, 4, -4, 5}},
		{"a majority with noise", "majority", nil, []uint64{100, 103, 106, 5000, 5003, 5006}, []int64{3}},
		{"half is no majority", "majority", nil, []uint64{100, 300, 303, 306}, nil},
		{"a period", "markov", nil, []uint64{100, 101, 105, 106, 110, 111, 115, 116}, []int64{1, 5, 6, 10, 11, 15, 16, 20, 21, 25, 26, 30, 31, 35, 36, 40}},
	} {
		g := newGuest(t, c.name)
		for _, page := range c.present {
			g.present[page] = true
		}
		if got := g.touch(c.touch...); !slices.Equal(got, c.want) {
			t.Errorf("%s: %s after %d: %d, want %d", c.what, c.name, c.touch, got, c.want)
		}
	}
}

// TestWindows: the window of a stream doubles while it is followed, and shrinks when it is not.
func TestWindows(t *testing.T) {
	g := newGuest(t, "sequential")
	var windows []int
	for _, page := range []uint64{10, 12, 15, 20, 29, 46, 90_000, 70_000, 50_000, 30_000, 10_000} {
		windows = append(windows, len(g.touch(page)))
	}
	if want := []int{1, 2, 4, 8, 16, 16, 16, 8, 4, 2, 1}; !slices.Equal(windows, want) {
		t.Errorf("windows %d, want %d", windows, want)
	}
}

// TestHitsGoAhead: once a stream is known and its hits are shown, nobody waits again.
func TestHitsGoAhead(t *testing.T) {
	for _, name := range []string{"sequential", "stride", "auto"} {
		g := newGuest(t, name)
		for page := uint64(1000); page < 5000; page++ {
			if !g.present[page] {
				g.touch(page)
				continue
			}
			for _, p := range g.p.Hit(page, nil, 16) {
				g.present[p] = true
			}
		}
		if len(g.misses) > 4 {
			t.Errorf("%s: %d misses", name, len(g.misses))
		}
	}
}
