package watch

import (
	"math/bits"

	"github.com/fineline-vmm/fineline/coherence/track"
	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/vmm/api"
)

const largePageBytes = 2 << 20

// tally adds up the pages of one harvest, which come in rising order.
type tally struct {
	pieces *pieces // nil without details

	pages, lines, largePages uint64
	inexact, uncounted       uint64
	countedLines, changed    uint64 // of the pages whose changed bytes are known
	lastLarge                memory.GPA
	top                      []api.TrackPage // sorted, the most lines first
}

func (t *tally) add(p track.Page) {
	n := bits.OnesCount64(p.Lines)
	if large := p.GPA / largePageBytes; t.pages == 0 || large != t.lastLarge {
		t.largePages++
		t.lastLarge = large
	}
	t.pages++
	t.lines += uint64(n)
	if p.Inexact {
		t.inexact++
	}
	if p.Counted {
		t.countedLines += uint64(n)
		t.changed += uint64(p.ChangedBytes)
	} else {
		t.uncounted++
	}
	if t.pieces != nil {
		t.pieces.add(p)
		t.rank(api.TrackPage{GPA: uint64(p.GPA), Mask: api.LineMask(p.Lines), Lines: n})
	}
}

// rank keeps the pages with the most lines, of equal ones the lower.
func (t *tally) rank(p api.TrackPage) {
	at := len(t.top)
	for at > 0 && t.top[at-1].Lines < p.Lines {
		at--
	}
	switch {
	case at == api.MaxTrackTopPages:
		return
	case len(t.top) < api.MaxTrackTopPages:
		t.top = append(t.top, p)
	}
	copy(t.top[at+1:], t.top[at:])
	t.top[at] = p
}

func (t *tally) window(counted bool) api.TrackWindow {
	w := api.TrackWindow{
		Pages: t.pages, Lines: t.lines, Pages2M: t.largePages, InexactPages: t.inexact,
		Amplification4K: ratio(t.pages*memory.PageSize, t.lines*track.LineBytes),
		Amplification2M: ratio(t.largePages*largePageBytes, t.lines*track.LineBytes),
	}
	if counted {
		w.ChangedBytes, w.UncountedPages = &t.changed, t.uncounted
		w.Amplification64 = ratio(t.countedLines*track.LineBytes, t.changed)
	}
	if t.pieces != nil {
		w.Detail = t.pieces.detail(t.top)
	}
	return w
}

// ratio is nil when there is nothing to compare with.
func ratio(bytes, of uint64) *float64 {
	if of == 0 {
		return nil
	}
	r := float64(bytes) / float64(of)
	return &r
}
