package coherence

import (
	"math/bits"
	"math/rand/v2"
)

// replacer remembers what a rule needs to choose a victim in a full set.
type replacer interface {
	touch(set, way int)
	victim(set int) (way int)
}

// newReplacer makes the rule of one cache. Random caches draw from streams of
// their own, so that one cache's evictions do not depend on another's.
func newReplacer(c Config, cache Node) replacer {
	switch c.Replacement {
	case TreePLRU:
		return &treePLRU{levels: bits.Len(uint(c.Ways)) - 1, nodes: make([]uint64, c.Sets)}
	case Random:
		return &random{ways: c.Ways, rand: rand.New(rand.NewPCG(c.Seed, uint64(cache)))}
	}
	return &lru{ways: c.Ways, used: make([]uint64, c.Sets*c.Ways)}
}

// lru evicts the way that was touched longest ago.
type lru struct {
	ways  int
	clock uint64
	used  []uint64 // the clock at the last touch, set by set
}

func (r *lru) touch(set, way int) {
	r.clock++
	r.used[set*r.ways+way] = r.clock
}

func (r *lru) victim(set int) int {
	used := r.used[set*r.ways : (set+1)*r.ways]
	oldest := 0
	for way, u := range used {
		if u < used[oldest] {
			oldest = way
		}
	}
	return oldest
}

// treePLRU keeps a binary tree of bits a set; each bit points to the half that
// was not touched last. Node 1 is the root, node n has the children 2n and 2n+1.
type treePLRU struct {
	levels int
	nodes  []uint64 // bit n is node n
}

func (r *treePLRU) touch(set, way int) {
	node := 1
	for level := r.levels - 1; level >= 0; level-- {
		side := way >> level & 1
		if side == 0 {
			r.nodes[set] |= 1 << node
		} else {
			r.nodes[set] &^= 1 << node
		}
		node = 2*node + side
	}
}

func (r *treePLRU) victim(set int) int {
	node := 1
	for range r.levels {
		node = 2*node + int(r.nodes[set]>>node&1)
	}
	return node - 1<<r.levels
}

// random evicts any way.
type random struct {
	ways int
	rand *rand.Rand
}

func (r *random) touch(int, int) {}

func (r *random) victim(int) int { return r.rand.IntN(r.ways) }
