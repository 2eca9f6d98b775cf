package coherence

import (
	"fmt"
	"iter"
	"math/bits"
	"slices"
)

// LineSize is the size of a line in bytes, PageLines the number of lines in a
// page of 4096 bytes.
const (
	LineSize  = 64
	PageLines = 64
)

// Line is the number of a line: a physical address divided by LineSize.
type Line uint64

// lastLine is the highest line of a 64-bit address space.
const lastLine Line = 1<<58 - 1

// Page returns the number of the line's page: its physical address divided by 4096.
func (l Line) Page() uint64 { return uint64(l) / PageLines }

// bit returns the line's bit in the mask of its page.
func (l Line) bit() uint64 { return 1 << (l % PageLines) }

// Range is Count lines from First.
type Range struct {
	First Line
	Count uint64
}

func (r Range) last() Line { return r.First + Line(r.Count) - 1 }

func (r Range) contains(l Line) bool { return l >= r.First && l <= r.last() }

func (r Range) String() string { return fmt.Sprintf("%d-%d", r.First, r.last()) }

// normalize returns ranges sorted, with those that overlap or touch joined.
func normalize(ranges []Range) ([]Range, error) {
	if len(ranges) == 0 {
		return nil, fmt.Errorf("%w: no lines", ErrRange)
	}
	sorted := slices.Clone(ranges)
	slices.SortFunc(sorted, func(a, b Range) int {
		switch {
		case a.First < b.First:
			return -1
		case a.First > b.First:
			return 1
		}
		return 0
	})
	var joined []Range
	for _, r := range sorted {
		if r.Count == 0 || r.First > lastLine || r.Count-1 > uint64(lastLine-r.First) {
			return nil, fmt.Errorf("%w: %d lines from line %d", ErrRange, r.Count, r.First)
		}
		if n := len(joined); n > 0 && r.First <= joined[n-1].last()+1 {
			end := max(joined[n-1].last(), r.last())
			joined[n-1].Count = uint64(end-joined[n-1].First) + 1
			continue
		}
		joined = append(joined, r)
	}
	return joined, nil
}

// PageMask names lines of one page: bit b of Mask is the page's line b.
type PageMask struct {
	Page uint64
	Mask uint64
}

// Lines yields the lines that pages name, page by page in their order.
func Lines(pages []PageMask) iter.Seq[Line] {
	return func(yield func(Line) bool) {
		for _, p := range pages {
			for m := p.Mask; m != 0; m &= m - 1 {
				if !yield(Line(p.Page*PageLines) + Line(bits.TrailingZeros64(m))) {
					return
				}
			}
		}
	}
}
