package postcopy

import "github.com/fineline-vmm/fineline/migration/wire"

// Limits of the window: how many predicted pages one request names. A page that nobody wanted yet is not lost,
// since all are sent once; it only takes the place of others. So the least is not little.
const (
	minWindow = 16
	maxWindow = wire.MaxRequestPages - 1
)

// window chooses how many of the predicted pages are asked for. The use of a page that is there is not seen; a
// miss is. So the window asks the predictor for twice as many pages as it sends for, and remembers them: a miss
// on a remembered page says that the predictor was right and the window too small (or too late), and doubles
// it; a miss on any other says that the predictor was wrong, and halves it.
type window struct {
	size  int
	named map[uint64]struct{} // the pages in ring
	ring  [rememberedPages]uint64
	at    int
}

// rememberedPages: of several guest CPUs that miss in turn, each needs its last prediction.
const rememberedPages = 16 * wire.MaxRequestPages

func newWindow() *window {
	return &window{size: minWindow, named: make(map[uint64]struct{}, rememberedPages)}
}

// missed adapts the window and reports whether the page had been named.
func (w *window) missed(page uint64) bool {
	_, right := w.named[page]
	if right {
		w.size = min(2*w.size, maxWindow)
	} else {
		w.size = max(w.size/2, minWindow)
	}
	return right
}

// ask is how many pages the predictor is asked for: with those that are not sent for.
func (w *window) ask() int { return 2*w.size + 2 }

func (w *window) remember(pages []uint64) {
	for _, page := range pages {
		if _, ok := w.named[page]; ok {
			continue
		}
		delete(w.named, w.ring[w.at])
		w.ring[w.at] = page
		w.at = (w.at + 1) % rememberedPages
		w.named[page] = struct{}{}
	}
}
