package memory

import (
	"fmt"
	"math/bits"
)

// DataPages returns the pages that may hold something other than zeros: those
// that were ever touched since New or Reset, and those that are missing. Asking makes no page resident.
// While others store, the result is only good together with a Tracker that was
// started before: a page missed here is reported there.
func (g *Guest) DataPages() (*PageSet, error) {
	set := g.NewPageSet()
	err := g.findData(set, func(region int) error {
		return g.rams[region].rangeData(func(off, end uint64) { set.addRange(region, off/PageSize, (end-1)/PageSize) })
	})
	if err != nil {
		return nil, err
	}
	return set, nil
}

// AddDataPages brings up to date what DataPages returned before: it adds the pages that were touched since. It looks only
// where the set has gaps, since the end of a run of pages costs the kernel some 45 ns for each of them (lseek(2), SEEK_HOLE on
// tmpfs): 90 ms for 8 GiB that are full.
func (g *Guest) AddDataPages(set *PageSet) error {
	return g.findData(set, func(region int) error {
		for first, end := set.gap(region, 0); first < end; first, end = set.gap(region, end) {
			for page := first; page < end; page++ {
				off, err := g.rams[region].nextData(page * PageSize)
				if err != nil {
					return err
				}
				if page = off / PageSize; page < end {
					set.addRange(region, page, page)
				}
			}
		}
		return nil
	})
}

// findData has find look at each region, for set.
func (g *Guest) findData(set *PageSet, find func(region int) error) error {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.closed.Load() {
		return ErrClosed
	}
	if d := g.demand.Load(); d != nil { // before the look at the file, which has what is filled from now on
		set.Union(d.hidden.snapshot(g))
	}
	for i := range g.rams {
		if err := find(i); err != nil {
			return fmt.Errorf("find the data of guest memory at %#x: %w", uint64(g.layout.spans[i].Base), err)
		}
	}
	return nil
}

// gap returns the first pages in a row that are not in the set, at from or behind it, numbered from the start of the region; an
// empty run at its end if there are none.
func (s *PageSet) gap(region int, from uint64) (first, end uint64) {
	r := &s.layout.spans[region]
	pages := r.SizeBytes / PageSize
	first = s.scan(r.firstWord, from, pages, ^uint64(0))
	return first, s.scan(r.firstWord, first, pages, 0)
}

// scan returns the first page at from or behind it whose bit, after an XOR with flip, is set; pages if there is none.
func (s *PageSet) scan(firstWord int, from, pages, flip uint64) uint64 {
	for from < pages {
		if word := (s.words[firstWord+int(from/64)] ^ flip) >> (from % 64); word != 0 {
			return min(from+uint64(bits.TrailingZeros64(word)), pages)
		}
		from = (from/64 + 1) * 64
	}
	return pages
}
