package postcopy

import "sync"

// guesser is the predictor with its window.
type guesser struct {
	mu     sync.Mutex
	pred   Predictor // nil: none
	window *window
	buf    []uint64
}

func newGuesser(pred Predictor) *guesser {
	return &guesser{pred: pred, window: newWindow()}
}

// miss tells the predictor of a miss, and calls take with the pages that it names, best first, until take has taken as many as
// the window allows. It reports whether the page had been named before.
func (g *guesser) miss(page uint64, take func(page uint64) bool) (right bool) {
	if g.pred == nil {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	right = g.window.missed(page)
	g.buf = g.pred.Miss(page, g.buf[:0], g.window.ask())
	g.window.remember(g.buf)
	left := g.window.size
	for _, next := range g.buf {
		if left == 0 {
			break
		}
		if next != page && take(next) {
			left--
		}
	}
	return right
}

// arrived shows a page that was asked for.
func (g *guesser) arrived(page uint64, content []byte) {
	if g.pred == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pred.Arrived(page, content)
}
