package replay

import (
	"encoding/binary"
	"math/rand/v2"
)

// space is an address space: consecutive virtual pages that lie anywhere in RAM, and the page
// tables that say where, which lie anywhere too.
type space struct {
	free    []int // pages of RAM in random order, not used yet
	content map[uint64][]byte
	data    []uint64    // the page behind each virtual page
	walk    [][4]uint64 // the tables on the way to each 512 virtual pages, from the root
	noise   []byte      // of a page that is no table
}

// Present, writable, user, accessed: Intel SDM vol. 3, "Format of a Page-Table Entry".
const tableEntry, dataEntry = 0x27, 0x67

func newSpace(random *rand.Rand, pages int) *space {
	s := &space{free: random.Perm(ramPages), content: map[uint64][]byte{}, noise: make([]byte, 4096)}
	for i := range s.noise {
		s.noise[i] = byte(random.Uint32())
	}
	root, pointers, directory := s.table(), s.table(), s.table()
	s.enter(root, 0, pointers, tableEntry)
	s.enter(pointers, 5, directory, tableEntry)
	var table uint64
	for v := range pages {
		if v%512 == 0 {
			table = s.table()
			s.enter(directory, v/512, table, tableEntry)
			s.walk = append(s.walk, [4]uint64{root, pointers, directory, table})
		}
		at := s.take()
		s.enter(table, v%512, at, dataEntry)
		s.data = append(s.data, at)
	}
	return s
}

func (s *space) take() uint64 {
	at := s.free[0]
	s.free = s.free[1:]
	return uint64(at)
}

func (s *space) table() uint64 {
	at := s.take()
	s.content[at] = make([]byte, 4096)
	return at
}

func (s *space) enter(table uint64, index int, page, flags uint64) {
	binary.LittleEndian.PutUint64(s.content[table][8*index:], page<<12|flags)
}

// touch returns what a processor touches for the virtual pages: the tables on the way whenever it
// comes to others, and the pages.
func (s *space) touch(virtual []uint64) []uint64 {
	var pages []uint64
	last := -1
	for _, v := range virtual {
		if table := int(v / 512); table != last {
			pages = append(pages, s.walk[table][:]...)
			last = table
		}
		pages = append(pages, s.data[v])
	}
	return pages
}

func (s *space) trace(name string, virtual []uint64) Trace {
	return Trace{Name: name, Pages: ramPages, VCPUs: [][]uint64{s.touch(virtual)}, Content: func(page uint64) []byte {
		if content, ok := s.content[page]; ok {
			return content
		}
		return s.noise
	}}
}

func tableTraces(random *rand.Rand) []Trace {
	s := newSpace(random, 16_384)
	inClusters := func() []uint64 {
		var pages []uint64
		for range 24 {
			first := random.Uint64N(16_384 - 256)
			for range 512 {
				pages = append(pages, first+random.Uint64N(256))
			}
		}
		return pages
	}
	return []Trace{
		s.trace("virtual sequential", run(0, 1, 12_000)),
		s.trace("virtual stride 5", run(3, 5, 3200)),
		s.trace("virtual clusters", inClusters()),
	}
}
