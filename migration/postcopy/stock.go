package postcopy

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// stockBytes is how much a background connection brings before what it has brought is in place. What is in the stock costs who
// misses it no more than the fill; what is still in a socket, a round trip.
const stockBytes = 4 << 20

// stock is the frames of one background connection whose pages are not all in place. One goroutine adds what it reads, one takes
// and stores, and any may find a page for who waits for it. Its bound is what keeps a source from filling our memory.
type stock struct {
	mu        sync.Mutex
	changed   sync.Cond
	crates    []*crate
	sizeBytes int
	spare     [][]byte // payloads that nobody uses any more
	closed    bool     // nothing is added any more
	err       error    // of the context: nothing is taken any more, either
}

// crate is one frame.
type crate struct {
	first, last uint64 // page numbers that its pages lie between
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

// add copies a frame whose pages are between first and last. It waits until there is room; a frame alone always has.
func (s *stock) add(payload []byte, first, last uint64) error {
	c := &crate{first: first, last: last, payload: append(s.takeSpare(), payload...)}
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.err == nil && len(s.crates) > 0 && s.sizeBytes+len(payload) > stockBytes {
		s.changed.Wait()
	}
	if s.err != nil {
		return s.err
	}
	s.crates = append(s.crates, c)
	s.sizeBytes += len(payload)
	s.changed.Broadcast()
	return nil
}

func (s *stock) takeSpare() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.spare)
	if n == 0 {
		return nil
	}
	buf := s.spare[n-1]
	s.spare = s.spare[:n-1]
	return buf[:0]
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
	s.sizeBytes -= len(c.payload)
	s.spare = append(s.spare, c.payload)
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
