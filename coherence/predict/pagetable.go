package predict

import "math/bits"

const (
	fewestTables = 64
	mostTables   = 1024 // 4 MiB, and as much for the index

	// tableSpan is the distance of two tables in the numbers of entries, with a gap between them
	// so that nothing crosses from one into the other.
	tableSpan = 2 * entries
)

// pagetable keeps the page-table pages that have arrived. A miss on a page that one of them points at
// is a touch of virtual memory: the entries are numbered, the strategies stride and around look at their
// numbers as if they were pages, and what they name is translated back. So
// what lies together in virtual memory is fetched together, wherever it lies in RAM: pages, and
// the tables of the next level too. Compare US12019554.
type pagetable struct {
	options   *Options
	tables    [][entries]uint64 // a ring
	stored    int               // tables so far
	index     []uint32          // of entries by hash of their target: the entry's number + 1
	indexBits int
	scratch   [entries]uint64

	virtual strategy
	picker  picker // of entries
}

func newPagetable(o *Options) strategy {
	var ram uint64
	for _, r := range o.RAM {
		ram = min(ram+r.Pages, maxPage)
	}
	n := int(min(max(ram/entries, fewestTables), mostTables))
	indexBits := bits.Len(uint(2*entries*n - 1))
	p := &pagetable{
		options:   o,
		tables:    make([][entries]uint64, n),
		index:     make([]uint32, 1<<indexBits),
		indexBits: indexBits,
	}
	entry := &Options{
		RAM:    []Range{{First: 0, Pages: uint64(n) * tableSpan}},
		Wanted: func(number uint64) bool { t := p.target(number); return t != 0 && o.wanted(t&^largeTarget) },
	}
	p.picker.options = entry
	p.virtual = newTeam(entry, newStride, newMarkov, newAround)
	return p
}

// target returns what an entry points at, 0 for nothing.
func (p *pagetable) target(number uint64) uint64 {
	if number%tableSpan >= entries {
		return 0
	}
	return p.tables[number/tableSpan][number%tableSpan]
}

func (p *pagetable) arrived(_ uint64, content []byte) {
	if !decode(content, p.options, &p.scratch) {
		return
	}
	slot := p.stored % len(p.tables)
	p.stored++
	p.tables[slot] = p.scratch
	for i, t := range p.scratch {
		if t != 0 {
			p.index[hash(t, p.indexBits)] = uint32(slot*tableSpan+i) + 1
		}
	}
}

// entryOf returns the number of an entry that points at target. Of several it is the one that
// arrived last.
func (p *pagetable) entryOf(target uint64) (uint64, bool) {
	number := uint64(p.index[hash(target, p.indexBits)]) - 1
	if number == ^uint64(0) || p.target(number) != target {
		return 0, false
	}
	return number, true
}

func (p *pagetable) miss(page uint64, out *picker) {
	if number, ok := p.entryOf(page); ok {
		p.ask(p.virtual.miss, number, out)
		return
	}
	p.inLarge(page, out)
}

func (p *pagetable) hit(page uint64, out *picker) {
	if number, ok := p.entryOf(page); ok {
		p.ask(p.virtual.hit, number, out)
	}
}

// ask lets a strategy name entries and picks what they point at.
func (p *pagetable) ask(call func(uint64, *picker), number uint64, out *picker) {
	var named [mostPicked]uint64
	p.picker.begin(number, named[:0], out.room)
	call(number, &p.picker)
	for _, number := range p.picker.take() {
		out.add(p.target(number) &^ largeTarget)
	}
}

// inLarge names what follows page in virtual memory if it is near the end of a large page: the
// rest of it, and the begin of the next.
func (p *pagetable) inLarge(page uint64, out *picker) {
	start := page &^ (largePages - 1)
	number, ok := p.entryOf(start | largeTarget)
	if !ok {
		return
	}
	if start+largePages-page > uint64(out.room) {
		return // page numbers tell as much
	}
	for at := page + 1; at < start+largePages; at++ {
		out.pick(at)
	}
	if next := p.target(number + 1); next&largeTarget != 0 {
		for i := range uint64(largePages) {
			if !out.pick(next&^largeTarget + i) {
				return
			}
		}
	}
}
