package coherence

import (
	"cmp"
	"fmt"
	"maps"
	"math/bits"
	"slices"
)

// State is the saved form of a device whose caches hold nothing written. The
// caches themselves are not in it: see the package comment. Its encoding,
// version and checksum are the shell's.
type State struct {
	Regions []RegionState // rising ids
	Memory  []LineVersion // rising lines; empty without Config.Versions
	Stats   Stats
}

// RegionState is the saved form of a region.
type RegionState struct {
	ID      RegionID
	Ranges  []Range
	Active  bool
	Pending []PageMask // rising pages
}

// LineVersion is the version of a line in memory.
type LineVersion struct {
	Line    Line
	Version uint64
}

// State returns the saved form, which shares nothing with the system. It is
// ErrBusy when a message is in flight or a cache may hold a written line: Flush
// and Settle first, with no access between.
func (s *System) State() (State, error) {
	if n := len(s.inflight); n > 0 {
		return State{}, fmt.Errorf("%w: %d messages in flight", ErrBusy, n)
	}
	if e := s.home.owned.front; e != nil {
		return State{}, fmt.Errorf("%w: %v may hold line %d written", ErrBusy, e.owner, e.line)
	}
	saved := State{Stats: s.stats}
	for _, r := range s.home.regions {
		saved.Regions = append(saved.Regions, RegionState{
			ID: r.id, Ranges: slices.Clone(r.ranges), Active: r.active, Pending: sortedPages(r.pending),
		})
	}
	for _, line := range slices.Sorted(maps.Keys(s.home.memory)) {
		saved.Memory = append(saved.Memory, LineVersion{line, s.home.memory[line]})
	}
	return saved, nil
}

// Restore puts a saved form into a new System, of any Config. It checks all of
// it before it changes anything: ErrState, or ErrBusy if the system is not new.
func (s *System) Restore(saved State) error {
	if len(s.inflight) > 0 || len(s.home.entries) > 0 || len(s.home.regions) > 0 {
		return fmt.Errorf("%w: restore into a system that was used", ErrBusy)
	}
	fresh := newDirectory(s.config, s.port)
	for _, r := range saved.Regions {
		if err := fresh.restoreRegion(r); err != nil {
			return err
		}
	}
	for _, m := range saved.Memory {
		if m.Line > lastLine {
			return fmt.Errorf("%w: line %d", ErrState, m.Line)
		}
		fresh.setVersion(m.Line, m.Version)
	}
	s.home, s.stats = fresh, saved.Stats
	return nil
}

func (d *directory) restoreRegion(saved RegionState) error {
	if err := d.addRegion(saved.ID, saved.Ranges); err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	r, err := d.region(saved.ID)
	if err != nil {
		return err
	}
	r.active = saved.Active
	for _, p := range saved.Pending {
		if p.Page > lastLine.Page() || p.Mask == 0 || r.clipped(p) != p.Mask {
			return fmt.Errorf("%w: page %d with lines %#x pending in region %d", ErrState, p.Page, p.Mask, saved.ID)
		}
		r.pending[p.Page] |= p.Mask
	}
	return nil
}

func sortedPages(pending map[uint64]uint64) []PageMask {
	pages := make([]PageMask, 0, len(pending))
	for page, mask := range pending {
		pages = append(pages, PageMask{page, mask})
	}
	slices.SortFunc(pages, func(a, b PageMask) int { return cmp.Compare(a.Page, b.Page) })
	return pages
}

func popCount(mask uint64) int { return bits.OnesCount64(mask) }
