package coherence

import (
	"cmp"
	"fmt"
	"slices"
)

// RegionID names a region; the shell chooses it.
type RegionID uint64

// region is a set of lines that are tracked together.
type region struct {
	id      RegionID
	ranges  []Range // normalized
	active  bool
	pending map[uint64]uint64 // page to mask: written back since the last harvest
	drain   *drain            // the harvest or stop under way, or nil
}

// drain waits until lines that were owned at its begin are written back.
type drain struct {
	region   *region // nil: a flush
	stop     bool    // else a harvest
	max      int     // of a harvest
	waits    int     // for lines
	canceled bool
}

func (r *region) contains(line Line) bool {
	i, found := slices.BinarySearchFunc(r.ranges, line, func(x Range, l Line) int { return cmp.Compare(x.First, l) })
	return found || i > 0 && r.ranges[i-1].contains(line)
}

// clipped returns the part of a page's mask that is in the region.
func (r *region) clipped(p PageMask) uint64 {
	var mask uint64
	for line := range Lines([]PageMask{p}) {
		if r.contains(line) {
			mask |= line.bit()
		}
	}
	return mask
}

func byID(r *region, id RegionID) int { return cmp.Compare(r.id, id) }

func (d *directory) region(id RegionID) (*region, error) {
	i, found := slices.BinarySearchFunc(d.regions, id, byID)
	if !found {
		return nil, fmt.Errorf("%w: no region %d", ErrRegion, id)
	}
	return d.regions[i], nil
}

// idleRegion returns a region with no harvest or stop under way.
func (d *directory) idleRegion(id RegionID) (*region, error) {
	r, err := d.region(id)
	if err == nil && r.drain != nil {
		return nil, fmt.Errorf("%w: a harvest or stop of region %d is under way", ErrBusy, id)
	}
	return r, err
}

func (d *directory) addRegion(id RegionID, ranges []Range) error {
	joined, err := normalize(ranges)
	if err != nil {
		return fmt.Errorf("region %d: %w", id, err)
	}
	i, found := slices.BinarySearchFunc(d.regions, id, byID)
	if found {
		return fmt.Errorf("%w: region %d exists", ErrRegion, id)
	}
	r := &region{id: id, ranges: joined, active: true, pending: make(map[uint64]uint64)}
	d.regions = slices.Insert(d.regions, i, r)
	return nil
}

func (d *directory) removeRegion(id RegionID) error {
	r, err := d.region(id)
	if err != nil {
		return err
	}
	if r.drain != nil {
		r.drain.canceled = true
		d.emit(Effect{Kind: Aborted, Region: id})
	}
	d.regions = slices.DeleteFunc(d.regions, func(x *region) bool { return x == r })
	return nil
}

func (d *directory) startRegion(id RegionID) error {
	r, err := d.idleRegion(id)
	if err != nil {
		return err
	}
	if r.active {
		return fmt.Errorf("%w: region %d is started", ErrRegion, id)
	}
	r.active = true
	return nil
}

func (d *directory) stopRegion(id RegionID) error {
	r, err := d.idleRegion(id)
	if err != nil {
		return err
	}
	if !r.active {
		return fmt.Errorf("%w: region %d is stopped", ErrRegion, id)
	}
	r.drain = &drain{region: r, stop: true}
	return d.startDrain(r.drain)
}

func (d *directory) harvest(id RegionID, snoop bool, limit int) error {
	r, err := d.idleRegion(id)
	if err != nil {
		return err
	}
	if limit < 0 {
		return fmt.Errorf("%w: harvest of %d pages from region %d", ErrRange, limit, id)
	}
	if !snoop || !r.active { // a stop has snooped
		d.emit(d.collect(r, limit))
		return nil
	}
	r.drain = &drain{region: r, max: limit}
	return d.startDrain(r.drain)
}

func (d *directory) flush() error { return d.startDrain(&drain{}) }

// startDrain has every line written back that a cache may have written before
// now. Those are the owned lines: see entry. The requests queue like others,
// so a line that is busy is cleaned when its turn comes.
func (d *directory) startDrain(dr *drain) error {
	var lines []Line
	for e := d.owned.front; e != nil; e = e.next {
		if dr.region == nil || dr.region.contains(e.line) {
			lines = append(lines, e.line)
		}
	}
	if d.fault == forgetsSnoop && len(lines) > 0 && dr.region != nil {
		lines = lines[1:]
	}
	dr.waits = 1 + len(lines)
	for _, line := range lines {
		if err := d.submit(line, request{kind: clean, from: Home, drain: dr}); err != nil {
			return err
		}
	}
	d.drained(dr)
	return nil
}

// drained tells dr that one line, or its begin, is done.
func (d *directory) drained(dr *drain) {
	if dr == nil || dr.canceled {
		return
	}
	dr.waits--
	if dr.waits > 0 {
		return
	}
	r := dr.region
	if r == nil {
		d.emit(Effect{Kind: FlushDone})
		return
	}
	r.drain = nil
	if dr.stop {
		r.active = false
		d.emit(Effect{Kind: StopDone, Region: r.id})
		return
	}
	d.emit(d.collect(r, dr.max))
}

// collect takes up to limit pages out of the pending set; zero is no limit.
func (d *directory) collect(r *region, limit int) Effect {
	pages := sortedPages(r.pending)
	if limit > 0 && len(pages) > limit {
		pages = slices.Clip(pages[:limit])
	}
	for _, p := range pages {
		delete(r.pending, p.Page)
		d.stats.HarvestedLines += uint64(popCount(p.Mask))
	}
	d.stats.Harvests++
	return Effect{Kind: HarvestDone, Region: r.id, Pages: pages, More: len(r.pending) > 0}
}

// mark adds a line to the pending sets of the regions that track it.
func (d *directory) mark(line Line) {
	for _, r := range d.regions {
		if r.active && r.contains(line) {
			r.pending[line.Page()] |= line.bit()
		}
	}
}

func (d *directory) tracked(line Line) bool {
	return slices.ContainsFunc(d.regions, func(r *region) bool { return r.active && r.contains(line) })
}

// tick looks at the lines that were granted longest ago and has the tracked
// ones written back. What it has looked at goes to the end of the list, so that
// a tick costs no more than its share, however much is owned.
func (d *directory) tick() error {
	for range d.scan {
		e := d.owned.front
		if e == nil {
			return nil
		}
		d.owned.remove(e)
		d.owned.pushBack(e)
		if e.now.kind != 0 || !d.tracked(e.line) {
			continue
		}
		d.stats.Scans++
		if err := d.submit(e.line, request{kind: clean, from: Home}); err != nil {
			return err
		}
	}
	return nil
}
