package track

import (
	"maps"
	"slices"

	"github.com/fineline-vmm/fineline/coherence/baseline"
	"github.com/fineline-vmm/fineline/memory"
)

// A chunk is 2 MiB of guest memory: what is kept for pages is kept by the chunk, so that memory
// that nobody tracks or writes costs nothing.
const (
	chunkBytes = baseline.ChunkBytes
	chunkPages = baseline.ChunkPages
)

func chunkOf(gpa memory.GPA) uint64 { return uint64(gpa) / chunkBytes }

func pageInChunk(gpa memory.GPA) uint64 { return uint64(gpa) % chunkBytes / memory.PageSize }

// lineSet is what was found and not harvested yet.
type lineSet struct {
	counted   bool // keep ChangedBytes
	sizePages int
	chunks    map[uint64]*lineChunk
	last      *lineChunk // of key lastKey: pages come in order
	lastKey   uint64
	spare     []*lineChunk // empty ones, for the next round
}

type lineChunk struct {
	lines     [chunkPages]uint64
	inexact   [chunkPages / 64]uint64
	uncounted [chunkPages / 64]uint64
	changed   []uint32 // one a page, nil unless the set counts
}

func newLineSet(counted bool) *lineSet {
	return &lineSet{counted: counted, chunks: map[uint64]*lineChunk{}}
}

// add joins p with what is known of its page.
func (s *lineSet) add(p Page) {
	c, i := s.chunk(chunkOf(p.GPA)), pageInChunk(p.GPA)
	if c.lines[i] == 0 {
		s.sizePages++
	}
	c.lines[i] |= p.Lines
	if p.Inexact {
		c.inexact[i/64] |= 1 << (i % 64)
	}
	switch {
	case !p.Counted:
		c.uncounted[i/64] |= 1 << (i % 64)
	case c.changed != nil:
		c.changed[i] += p.ChangedBytes
	}
}

func (s *lineSet) chunk(key uint64) *lineChunk {
	if s.last != nil && s.lastKey == key {
		return s.last
	}
	c := s.chunks[key]
	if c == nil {
		c = s.newChunk()
		s.chunks[key] = c
	}
	s.last, s.lastKey = c, key
	return c
}

func (s *lineSet) newChunk() *lineChunk {
	if n := len(s.spare); n > 0 {
		c := s.spare[n-1]
		s.spare = s.spare[:n-1]
		return c
	}
	c := &lineChunk{}
	if s.counted {
		c.changed = make([]uint32, chunkPages)
	}
	return c
}

// take calls fn with every page in rising order until it returns false, and removes the pages for
// which it returned true. It reports whether all were seen.
func (s *lineSet) take(fn func(Page) bool) bool {
	for _, key := range slices.Sorted(maps.Keys(s.chunks)) {
		n, all := s.chunks[key].take(memory.GPA(key*chunkBytes), fn)
		if s.sizePages -= n; !all {
			return false
		}
		s.spare = append(s.spare, s.chunks[key])
		delete(s.chunks, key)
		s.last = nil
	}
	s.spare = s.spare[:min(len(s.spare), maxSpareChunks)]
	return true
}

// drain is take of at most max pages (0: all). It reports whether some are left.
func (s *lineSet) drain(max int, emit func(Page)) (more bool) {
	left := max
	return !s.take(func(p Page) bool {
		if max > 0 && left == 0 {
			return false
		}
		left--
		emit(p)
		return true
	})
}

// maxSpareChunks bounds the memory that waits for the next harvest: 1 GiB of scattered writes.
const maxSpareChunks = 512

func (c *lineChunk) take(base memory.GPA, fn func(Page) bool) (n int, all bool) {
	for i := range c.lines {
		if c.lines[i] == 0 {
			continue
		}
		if !fn(c.page(base, i)) {
			return n, false
		}
		c.forget(i)
		n++
	}
	return n, true
}

func (c *lineChunk) forget(i int) {
	c.lines[i] = 0
	c.inexact[i/64] &^= 1 << (i % 64)
	c.uncounted[i/64] &^= 1 << (i % 64)
	if c.changed != nil {
		c.changed[i] = 0
	}
}

func (c *lineChunk) page(base memory.GPA, i int) Page {
	p := Page{GPA: base + memory.GPA(i)*memory.PageSize, Lines: c.lines[i], Inexact: c.inexact[i/64]>>(i%64)&1 != 0}
	if c.changed != nil && c.uncounted[i/64]>>(i%64)&1 == 0 {
		p.Counted, p.ChangedBytes = true, c.changed[i]
	}
	return p
}

// each is take that removes nothing.
func (s *lineSet) each(fn func(Page)) {
	for _, key := range slices.Sorted(maps.Keys(s.chunks)) {
		c := s.chunks[key]
		for i := range c.lines {
			if c.lines[i] != 0 {
				fn(c.page(memory.GPA(key*chunkBytes), i))
			}
		}
	}
}

// keep drops the lines that are not in rs.
func (s *lineSet) keep(rs ranges) {
	for key, c := range s.chunks {
		for i := range c.lines {
			if c.lines[i] == 0 {
				continue
			}
			page := memory.GPA(key*chunkBytes) + memory.GPA(i)*memory.PageSize
			switch kept := c.lines[i] & rs.lines(page); kept {
			case c.lines[i]:
			case 0:
				c.forget(i)
				s.sizePages--
			default:
				c.lines[i] = kept
				c.uncounted[i/64] |= 1 << (i % 64) // the count has the lines that are dropped
			}
		}
	}
}
