package memory

import (
	"fmt"
	"math/bits"
)

// PageSet is a set of pages of one Guest, or of any Guest with the same
// regions: a dense bitmap, one bit a page (32 KiB for each GiB of RAM). It is plain
// memory of its own, valid after the Guest is closed, and not safe for
// concurrent use.
type PageSet struct {
	layout *layout
	words  []uint64
}

// NewPageSet returns an empty set over the pages of g.
func (g *Guest) NewPageSet() *PageSet { return newPageSet(g.layout) }

func newPageSet(l *layout) *PageSet {
	return &PageSet{layout: l, words: make([]uint64, l.words)}
}

// Add adds the page that holds gpa. It reports false, and adds nothing, when
// gpa is not RAM.
func (s *PageSet) Add(gpa GPA) bool {
	word, mask := s.locate(gpa)
	if word < 0 {
		return false
	}
	s.words[word] |= mask
	return true
}

// Has reports whether the page that holds gpa is in the set.
func (s *PageSet) Has(gpa GPA) bool {
	word, mask := s.locate(gpa)
	return word >= 0 && s.words[word]&mask != 0
}

func (s *PageSet) locate(gpa GPA) (word int, mask uint64) {
	i := s.layout.find(gpa)
	if i < 0 {
		return -1, 0
	}
	r := &s.layout.spans[i]
	page := uint64(gpa-r.Base) / PageSize
	return r.firstWord + int(page/64), 1 << (page % 64)
}

// Len returns the number of pages in the set.
func (s *PageSet) Len() uint64 {
	var n uint64
	for _, w := range s.words {
		n += uint64(bits.OnesCount64(w))
	}
	return n
}

// Clear empties the set.
func (s *PageSet) Clear() { clear(s.words) }

// Union adds every page of other. Sets of Guests with different regions have
// no union: that is a bug of the caller, and panics.
func (s *PageSet) Union(other *PageSet) {
	if !s.layout.equal(other.layout) {
		panic("memory: union of page sets with different regions")
	}
	for i, w := range other.words {
		s.words[i] |= w
	}
}

// AddBits adds pages of one region, given by its index in Regions: bit b of
// bits[w] is the region's page 64*w+b, as in KVM's dirty log. bits may be
// shorter than the region; bits beyond its last page are ignored. A region
// that does not exist, or more words than it has, is a bug and panics.
func (s *PageSet) AddBits(region int, bits []uint64) {
	r := &s.layout.spans[region]
	if len(bits) > r.words() {
		panic(fmt.Sprintf("memory: %d words of dirty bits for a region of %d", len(bits), r.words()))
	}
	dst := s.words[r.firstWord : r.firstWord+r.words()]
	for i, w := range bits {
		dst[i] |= w
	}
	last := r.pages() - 1
	dst[last/64] &= pageMask(last/64, 0, last)
}

// addRange adds the pages first to last, inclusive, of one region.
func (s *PageSet) addRange(region int, first, last uint64) {
	r := &s.layout.spans[region]
	for w := first / 64; w <= last/64; w++ {
		s.words[r.firstWord+int(w)] |= pageMask(w, first, last)
	}
}

// Range calls fn with the address of every page in the set, in rising order,
// until fn returns false. Whether it sees pages that fn adds is unspecified.
func (s *PageSet) Range(fn func(GPA) bool) {
	for i := range s.layout.spans {
		r := &s.layout.spans[i]
		for w, word := range s.words[r.firstWord : r.firstWord+r.words()] {
			base := r.Base + GPA(w)*64*PageSize
			if !rangeBits(word, func(bit int) bool { return fn(base + GPA(bit)*PageSize) }) {
				return
			}
		}
	}
}
