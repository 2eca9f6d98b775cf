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

// Union adds every page of other, which has the same regions.
func (s *PageSet) Union(other *PageSet) {
	s.mustMatch(other)
	for i, w := range other.words {
		s.words[i] |= w
	}
}

// AddBits adds pages of one region: bit b of bits[w] is the page 64*w+b after the
// one at base, as in KVM's dirty log of a slot of that many pages. bits may be shorter than
// pages; bits beyond it are ignored. Pages that are not of one region are a bug, and panic.
func (s *PageSet) AddBits(base GPA, pages uint64, bits []uint64) {
	region := s.layout.find(base)
	if region < 0 {
		panic(fmt.Sprintf("memory: dirty bits at %#x, which is not RAM", uint64(base)))
	}
	r := &s.layout.spans[region]
	first := uint64(base-r.Base) / PageSize
	if pages > r.pages()-first || uint64(len(bits)) > (pages+63)/64 {
		panic(fmt.Sprintf("memory: %d words of dirty bits for %d pages at %#x", len(bits), pages, uint64(base)))
	}
	dst, shift := s.words[r.firstWord+int(first/64):r.firstWord+r.words()], first%64
	for i, w := range bits {
		if i == int(pages/64) {
			w &= 1<<(pages%64) - 1
		}
		if w == 0 {
			continue
		}
		dst[i] |= w << shift
		if high := w >> (63 - shift) >> 1; high != 0 { // shifted by 64 in all when shift is 0
			dst[i+1] |= high
		}
	}
}

// AddRange adds every page that has one of the n > 0 bytes at gpa, which may cross regions that
// touch. It reports false, and may have added a part, when one is not RAM.
func (s *PageSet) AddRange(gpa GPA, n uint64) bool {
	for {
		i := s.layout.find(gpa)
		if i < 0 {
			return false
		}
		r := &s.layout.spans[i]
		off := uint64(gpa - r.Base)
		size := min(n, r.SizeBytes-off)
		s.addRange(i, off/PageSize, (off+size-1)/PageSize)
		if n -= size; n == 0 {
			return true
		}
		gpa += GPA(size)
	}
}

// Intersect removes every page that is not in other, which has the same regions.
func (s *PageSet) Intersect(other *PageSet) {
	s.mustMatch(other)
	for i, w := range other.words {
		s.words[i] &= w
	}
}

// Subtract removes every page of other, which has the same regions.
func (s *PageSet) Subtract(other *PageSet) {
	s.mustMatch(other)
	for i, w := range other.words {
		s.words[i] &^= w
	}
}

// partWords is how much of a set's bitmap is a part: 2 MiB of RAM.
const partWords = 8

// Parts returns how many parts the set can be ranged over by; a part is up to 512 pages that follow
// each other, in the order of their addresses.
func (s *PageSet) Parts() int { return (len(s.words) + partWords - 1) / partWords }

// RangePart is Range for the pages of one part. Several goroutines may range at once.
func (s *PageSet) RangePart(part int, fn func(GPA) bool) {
	from, to := part*partWords, min((part+1)*partWords, len(s.words))
	for i := range s.layout.spans {
		r := &s.layout.spans[i]
		for w := max(from, r.firstWord); w < min(to, r.firstWord+r.words()); w++ {
			base := r.Base + GPA(w-r.firstWord)*64*PageSize
			if !rangeBits(s.words[w], func(bit int) bool { return fn(base + GPA(bit)*PageSize) }) {
				return
			}
		}
	}
}

// mustMatch panics on sets of Guests with different regions: a bug of the caller.
func (s *PageSet) mustMatch(other *PageSet) {
	if !s.layout.equal(other.layout) {
		panic("memory: page sets with different regions")
	}
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
