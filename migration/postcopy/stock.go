package postcopy

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// What a background connection may bring before what it has brought is in place. What is in the stock costs who misses it no more
// than the fill; what is still in a socket, a round trip. The bounds are what keeps a source from filling our memory (design law 5),
// and who misses a page from a long search. That of pages is also one of time: while we store, and nothing is asked for, the
// source hears nothing from us.
const (
	stockBytes  = 4 << 20
	stockPages  = 16384
	stockFrames = 512
	spareFrames = 8
)

// stock is the frames of one background connection whose pages are not all in place. One goroutine adds what it reads, one takes
// and stores, and any may find a page for who waits for it.
type stock struct {
	mu        sync.Mutex // before all locks of the memory: find stores with it held
	changed   sync.Cond
	crates    []*crate
	sizeBytes int // of all crates, by their capacity
	pages     int
	spare     [][]byte // payloads that nobody uses any more
	closed    bool     // nothing is added any more
	err       error    // of the context: nothing is taken any more, either
}

// crate is one frame.
type crate struct {
	first, last uint64 // page numbers that its pages lie between
	pages       int
	payload     []byte
}

// newStock returns a stock of which nothing can be taken after the end of ctx.
func newStock(ctx context.Context) *stock {
	s := &stock{}
	s.changed.L = &s.mu
	context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.err = context.Cause(ctx)
		s.changed.Broadcast()
	})
	return s
}

// add copies a frame of pages between first and last. It waits until there is room; a frame alone always has.
func (s *stock) add(payload []byte, first, last uint64, pages int) error {
	c := &crate{first: first, last: last, pages: pages, payload: append(s.buffer(len(payload)), payload...)}
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.err == nil && !s.fits(c) {
		s.changed.Wait()
	}
	if s.err != nil {
		return s.err
	}
	s.crates = append(s.crates, c)
	s.sizeBytes += cap(c.payload)
	s.pages += c.pages
	s.changed.Broadcast()
	return nil
}

// fits: mu is held.
func (s *stock) fits(c *crate) bool {
	return len(s.crates) == 0 ||
		len(s.crates) < stockFrames && s.pages+c.pages <= stockPages && s.sizeBytes+cap(c.payload) <= stockBytes
}

// buffer returns an empty one for a payload, a spare one if that is not much larger: a small frame would keep a large buffer.
func (s *stock) buffer(sizeBytes int) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := len(s.spare); n > 0; n = len(s.spare) {
		buf := s.spare[n-1]
		s.spare = s.spare[:n-1]
		if cap(buf) >= sizeBytes && cap(buf) <= 2*sizeBytes {
			return buf[:0]
		}
	}
	return make([]byte, 0, sizeBytes)
}

// close says that no more comes.
func (s *stock) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.changed.Broadcast()
}

// take returns the frame whose pages are near or next after a page, around the end; nil when there will be none. Its pages can be
// found until it is given to done.
func (s *stock) take(near uint64) (*crate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.err == nil && len(s.crates) == 0 && !s.closed {
		s.changed.Wait()
	}
	var best *crate
	for _, c := range s.crates {
		if best == nil || c.last-near < best.last-near { // what lies before wraps
			best = c
		}
	}
	return best, s.err
}

// done drops a frame whose pages are in place.
func (s *stock) done(c *crate) {
	s.mu.Lock() // nobody has found anything in it
	defer s.mu.Unlock()
	s.crates = slices.DeleteFunc(s.crates, func(other *crate) bool { return other == c })
	s.sizeBytes -= cap(c.payload)
	s.pages -= c.pages
	if len(s.spare) < spareFrames {
		s.spare = append(s.spare, c.payload)
	}
	s.changed.Broadcast()
}

// errFound ends a search.
var errFound = errors.New("found")

// find calls fn with what came of a page, and reports whether something did. fn is quick: all others wait for it.
func (s *stock) find(page uint64, fn func(it arrival) error) (found bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.crates {
		if page < c.first || page > c.last {
			continue
		}
		_ = eachPage(c.payload, func(at uint64, it arrival) error { // well formed: it was read before
			if at != page {
				return nil
			}
			found, err = true, fn(it)
			return errFound
		})
		if found {
			break
		}
	}
	return found, err
}
