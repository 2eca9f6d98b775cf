package postcopy

import (
	"context"
	"testing"
)

// TestLeftCountsWhatIsClaimedTwice: a page that was predicted, and is missed while it is claimed, is counted as sent.
func TestLeftCountsWhatIsClaimedTwice(t *testing.T) {
	source := newSource(t, 300)
	s := NewServer(source, setOf(source, allPages(source)...), ServerOptions{})
	a := newAnswerer(s, context.Background(), Conn{})
	before := s.Left()
	const page = 3
	a.queue([]uint64{page})
	// The other goroutine, between the two halves of the claim: it finds the page claimed, and sends it.
	s.urged.add(page)
	s.sent.missed.Add(1)
	s.sent.again.Add(1)
	if got := a.claimPredicted(); len(got) != 0 {
		t.Errorf("%v is sent twice", got)
	}
	if left := s.Left(); left != before-1 {
		t.Errorf("%d pages of %d are left, and one was sent", left, before)
	}
}
