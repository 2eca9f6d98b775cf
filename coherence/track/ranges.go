package track

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/fineline-vmm/fineline/memory"
)

// ranges is a sorted list of ranges that neither overlap nor touch.
type ranges []Range

func (r Range) end() memory.GPA { return r.Base + memory.GPA(r.SizeBytes) }

// check admits whole lines of RAM; the list comes from a guest.
func check(mem *memory.Guest, list []Range) error {
	for _, r := range list {
		if r.SizeBytes == 0 || uint64(r.Base)%LineBytes != 0 || r.SizeBytes%LineBytes != 0 || !mem.Contains(r.Base, r.SizeBytes) {
			return fmt.Errorf("%w: %d bytes at %#x", ErrBadRange, r.SizeBytes, uint64(r.Base))
		}
	}
	return nil
}

// joined returns list as ranges.
func joined(list []Range) ranges {
	sorted := slices.Clone(list)
	slices.SortFunc(sorted, func(a, b Range) int { return cmp.Compare(a.Base, b.Base) })
	return ranges(nil).appendJoined(sorted)
}

// appendJoined appends ranges in rising order of their bases, each joined with the last if they
// meet.
func (rs ranges) appendJoined(sorted []Range) ranges {
	for _, r := range sorted {
		if n := len(rs); n > 0 && r.Base <= rs[n-1].end() {
			rs[n-1].SizeBytes = uint64(max(r.end(), rs[n-1].end()) - rs[n-1].Base)
			continue
		}
		rs = append(rs, r)
	}
	return rs
}

// union merges in linear time, since a guest registers a long list in pieces.
func (rs ranges) union(add ranges) ranges {
	all := make(ranges, 0, len(rs)+len(add))
	for len(rs) > 0 && len(add) > 0 {
		if rs[0].Base <= add[0].Base {
			all, rs = all.appendJoined(rs[:1]), rs[1:]
		} else {
			all, add = all.appendJoined(add[:1]), add[1:]
		}
	}
	return all.appendJoined(rs).appendJoined(add)
}

// minus returns what of rs is not in sub.
func (rs ranges) minus(sub ranges) ranges {
	left := make(ranges, 0, len(rs)+len(sub))
	for _, r := range rs {
		for len(sub) > 0 && sub[0].end() <= r.Base {
			sub = sub[1:]
		}
		for _, s := range sub { // those that begin in r; the last may reach into the next
			if s.Base >= r.end() {
				break
			}
			if s.Base > r.Base {
				left = append(left, Range{r.Base, uint64(s.Base - r.Base)})
			}
			if s.end() >= r.end() {
				r.SizeBytes = 0
				break
			}
			r = Range{s.end(), uint64(r.end() - s.end())}
		}
		if r.SizeBytes > 0 {
			left = append(left, r)
		}
	}
	return left
}

// contain reports whether all of sub is in rs.
func (rs ranges) contain(sub ranges) bool { return len(sub.minus(rs)) == 0 }

// lines is the mask of the lines of the page at gpa that are in rs.
func (rs ranges) lines(page memory.GPA) (mask uint64) {
	i, _ := slices.BinarySearchFunc(rs, page, func(r Range, p memory.GPA) int {
		if r.end() <= p {
			return -1
		}
		return 1
	})
	for ; i < len(rs) && rs[i].Base < page+memory.PageSize; i++ {
		mask |= linesOf(page, rs[i])
	}
	return mask
}

// linesOf is the mask of the lines of the page at gpa that have a byte of r, which meets the page.
func linesOf(page memory.GPA, r Range) uint64 {
	first, last := uint64(0), uint64(LinesPerPage-1)
	if r.Base > page {
		first = uint64(r.Base-page) / LineBytes
	}
	if r.end() < page+memory.PageSize {
		last = uint64(r.end()-1-page) / LineBytes
	}
	return ^uint64(0) << first & (^uint64(0) >> (LinesPerPage - 1 - last))
}

// addTo adds every page that has a line of rs.
func (rs ranges) addTo(set *memory.PageSet) {
	for _, r := range rs {
		set.AddRange(r.Base, r.SizeBytes)
	}
}

// chunkKeys returns the chunks that have a line of rs, in rising order.
func (rs ranges) chunkKeys() (keys []uint64) {
	for _, r := range rs {
		for key := chunkOf(r.Base); key <= chunkOf(r.end()-1); key++ {
			if n := len(keys); n == 0 || keys[n-1] != key {
				keys = append(keys, key)
			}
		}
	}
	return keys
}

// eachPage calls fn with each page that has a line of rs, and the mask of those lines.
func (rs ranges) eachPage(fn func(page memory.GPA, lines uint64)) {
	last := ^memory.GPA(0)
	for _, r := range rs {
		for page := r.Base &^ (memory.PageSize - 1); page < r.end(); page += memory.PageSize {
			if page != last { // two ranges may share a page
				fn(page, rs.lines(page))
				last = page
			}
		}
	}
}
