package coherence

import (
	"fmt"
	"math/bits"
)

// arrivedVersion is the version of a line as it arrives: what home lacks is not version 0, so that a simulation sees
// who was given a line that had not come.
const arrivedVersion = 1

// expect makes lines absent.
func (d *directory) expect(pages []PageMask) error {
	for _, p := range pages {
		if p.Page > lastLine.Page() || p.Mask == 0 {
			return fmt.Errorf("%w: lines %#x of page %d", ErrRange, p.Mask, p.Page)
		}
	}
	for line := range Lines(pages) {
		if d.entries[line] != nil {
			return fmt.Errorf("%w: line %d is held or asked for, and so is here", ErrBusy, line)
		}
	}
	if d.absent == nil {
		d.absent = make(map[uint64]uint64)
	}
	for _, p := range pages {
		d.absent[p.Page] |= p.Mask
	}
	return nil
}

func (d *directory) lacks(line Line) bool { return d.absent[line.Page()]&line.bit() != 0 }

// awaitsLine reports whether r cannot be done before its line is here. A write of the whole line could; it is not told
// from one of a part.
func (d *directory) awaitsLine(line Line, r request) bool {
	switch r.kind {
	case GetS, GetM, ioRead, ioWrite:
		return d.lacks(line) && d.fault != grantsAbsent
	}
	return false
}

func (d *directory) fetch(line Line) {
	d.stats.Fetches++
	d.emit(Effect{Kind: Fetch, Line: line})
}

// arrive takes those lines of a page that are absent, and goes on with who waits for them.
func (d *directory) arrive(p PageMask) (stored uint64, err error) {
	missing := d.absent[p.Page]
	stored = missing & p.Mask
	if d.fault == lateWins {
		stored = p.Mask
	}
	d.stats.ArrivedLines += uint64(bits.OnesCount64(stored))
	d.stats.LateLines += uint64(bits.OnesCount64(p.Mask &^ stored))
	if stored == 0 {
		return 0, nil
	}
	d.absent[p.Page] = missing &^ stored
	var bad error
	for line := range Lines([]PageMask{{p.Page, stored}}) {
		d.setVersion(line, arrivedVersion)
		if e := d.entries[line]; e != nil && d.fault != forgetsWaiter {
			d.finish(e)
			if err := d.advance(e); err != nil {
				bad = err // of a request that waited behind; the last one is told
			}
		}
	}
	if d.absent[p.Page] == 0 {
		delete(d.absent, p.Page)
		d.emit(Effect{Kind: PageDone, Line: Line(p.Page * PageLines)})
	}
	return stored, bad
}

// Expect says that home lacks these lines: they are absent until Arrive brings them, and an access to one waits for that
// (effect Fetch). ErrBusy, and nothing is changed, if a line is held or asked for already; ErrRange for lines that do
// not exist or a mask of none.
func (s *System) Expect(pages ...PageMask) error { return s.home.expect(pages) }

// Lacks returns the lines of a page that are absent.
func (s *System) Lacks(page uint64) uint64 { return s.home.absent[page] }

// Arrive says that lines of a page have come, and returns those that home takes: the absent ones. The shell puts the bytes
// of these, and of no others, into memory before it acts on any later effect: a line that is not taken is here,
// and may have been written since. Accesses that waited go on (AccessDone, after Settle); PageDone
// tells that nothing of the page is absent any more.
func (s *System) Arrive(p PageMask) (stored uint64, err error) { return s.home.arrive(p) }

// Refetch emits Fetch again for each line that somebody waits for, in rising order: what was asked on a connection that is
// lost must be asked on the next.
func (s *System) Refetch() {
	for _, p := range sortedPages(s.home.absent) {
		for line := range Lines([]PageMask{p}) {
			if s.home.entries[line] != nil {
				s.home.fetch(line)
			}
		}
	}
}
