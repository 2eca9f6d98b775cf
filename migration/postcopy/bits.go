package postcopy

import (
	"math/bits"
	"sync/atomic"

	"github.com/fineline-vmm/fineline/memory"
)

// pageBits is a set of page numbers that goroutines change together: one bit a page from the word of the
// lowest to that of the highest page it was made for. A hole between regions costs 32 KiB a GiB.
type pageBits struct {
	base  uint64 // page number of the first bit, a multiple of 64
	words []atomic.Uint64
}

// newPageBits returns an empty set that can hold the pages of like.
func newPageBits(like *memory.PageSet) *pageBits {
	first, last := ^uint64(0), uint64(0)
	like.RangeWords(func(base memory.GPA, word uint64) {
		first = min(first, pageNumber(base))
		last = max(last, pageNumber(base)+uint64(bits.Len64(word))-1)
	})
	if first > last {
		return &pageBits{}
	}
	base := first &^ 63
	return &pageBits{base: base, words: make([]atomic.Uint64, (last-base)/64+1)}
}

// pageBitsOf returns the set of the pages of set.
func pageBitsOf(set *memory.PageSet) *pageBits {
	b := newPageBits(set)
	set.RangeWords(func(base memory.GPA, word uint64) {
		i, shift := (pageNumber(base)-b.base)/64, pageNumber(base)%64
		b.words[i].Or(word << shift)
		if high := word >> (63 - shift) >> 1; high != 0 { // shifted by 64 in all when shift is 0
			b.words[i+1].Or(high)
		}
	})
	return b
}

func pageNumber(gpa memory.GPA) uint64 { return uint64(gpa) / memory.PageSize }

func pageGPA(number uint64) memory.GPA { return memory.GPA(number * memory.PageSize) }

// locate returns nil for a page beyond the set's range.
func (b *pageBits) locate(page uint64) (word *atomic.Uint64, mask uint64) {
	i := (page - b.base) / 64 // below base it wraps
	if i >= uint64(len(b.words)) {
		return nil, 0
	}
	return &b.words[i], 1 << (page % 64)
}

func (b *pageBits) has(page uint64) bool {
	word, mask := b.locate(page)
	return word != nil && word.Load()&mask != 0
}

// add reports whether the page is new in the set. Precondition: the page is in the set's range.
func (b *pageBits) add(page uint64) bool {
	word, mask := b.locate(page)
	return word.Or(mask)&mask == 0
}

// take removes the page and reports whether it was there: of those who take it at one time, one wins.
func (b *pageBits) take(page uint64) bool {
	word, mask := b.locate(page)
	return word != nil && word.And(^mask)&mask != 0
}

// next returns the first page of the set from page on, without wrapping around.
func (b *pageBits) next(page uint64) (uint64, bool) {
	page = max(page, b.base)
	first := ^uint64(0) << (page % 64)
	for i := (page - b.base) / 64; i < uint64(len(b.words)); i++ {
		if w := b.words[i].Load() & first; w != 0 {
			return b.base + i*64 + uint64(bits.TrailingZeros64(w)), true
		}
		first = ^uint64(0)
	}
	return 0, false
}
