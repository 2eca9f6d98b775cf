package postcopy

import (
	"sync"

	"github.com/fineline-vmm/fineline/coherence/predict"
	"github.com/fineline-vmm/fineline/memory"
)

// Guesser is a predictor with the window that says how much of it is believed. It is one Pager's.
type Guesser struct {
	mu     sync.Mutex // guards all below but chosen
	pred   predict.Predictor
	window *window
	named  []uint64
	wanted func(page uint64) bool // during a call of the predictor

	chosen []uint64 // of the last miss: what to ask for, best first
}

// NewGuesser makes one of predict.Names for a guest's memory. That takes up to milliseconds, so it is done before the guest
// is paused.
func NewGuesser(name string, ram []memory.Region) (*Guesser, error) {
	g := &Guesser{window: newWindow()}
	o := predict.Options{Wanted: func(page uint64) bool { return g.wanted(page) }}
	for _, r := range ram {
		o.RAM = append(o.RAM, predict.Range{First: pageNumber(r.Base), Pages: r.SizeBytes / memory.PageSize})
	}
	var err error
	g.pred, err = predict.New(name, o)
	return g, err
}

// miss tells the predictor of a miss and sets chosen. It reports whether the page had been named before.
func (g *Guesser) miss(page uint64, wanted func(page uint64) bool) (right bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	right = g.window.missed(page)
	g.wanted = wanted
	g.named = g.pred.Miss(page, g.named[:0], g.window.ask())
	g.window.remember(g.named)
	g.chosen = g.named[:min(len(g.named), g.window.size)]
	return right
}

// arrived shows a page that was asked for.
func (g *Guesser) arrived(page uint64, content []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pred.Arrived(page, content)
}
