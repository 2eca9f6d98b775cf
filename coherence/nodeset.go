package coherence

import (
	"iter"
	"math/bits"
)

// nodeSet is a set of caches.
type nodeSet [MaxCaches / 64]uint64

func (s *nodeSet) add(n Node)      { s[n/64] |= 1 << (n % 64) }
func (s *nodeSet) remove(n Node)   { s[n/64] &^= 1 << (n % 64) }
func (s *nodeSet) has(n Node) bool { return s[n/64]&(1<<(n%64)) != 0 }
func (s *nodeSet) empty() bool     { return *s == nodeSet{} }

// all yields the members in rising order.
func (s nodeSet) all() iter.Seq[Node] {
	return func(yield func(Node) bool) {
		for i, w := range s {
			for ; w != 0; w &= w - 1 {
				if !yield(Node(i*64 + bits.TrailingZeros64(w))) {
					return
				}
			}
		}
	}
}

// entryList is a list of directory entries, linked through them.
type entryList struct{ front, back *entry }

func (l *entryList) pushBack(e *entry) {
	e.prev, e.next = l.back, nil
	if l.back == nil {
		l.front = e
	} else {
		l.back.next = e
	}
	l.back = e
}

func (l *entryList) remove(e *entry) {
	if e.prev == nil {
		l.front = e.next
	} else {
		e.prev.next = e.next
	}
	if e.next == nil {
		l.back = e.prev
	} else {
		e.next.prev = e.prev
	}
	e.prev, e.next = nil, nil
}
