package memory

import (
	"slices"
	"testing"
)

// testRegions: two that touch and one apart, none with a multiple of 64 pages.
var testRegions = []Region{
	{Base: 0x100000, SizeBytes: 67 * PageSize},
	{Base: 0, SizeBytes: 5 * PageSize},
	{Base: 5 * PageSize, SizeBytes: 3 * PageSize},
}

const testPages = 67 + 5 + 3

func newTestGuest(t testing.TB, regions []Region) *Guest {
	t.Helper()
	g, err := New(regions, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// pagesOf lists a set.
func pagesOf(s *PageSet) []GPA {
	var pages []GPA
	s.Range(func(p GPA) bool { pages = append(pages, p); return true })
	return pages
}

func wantPages(t *testing.T, what string, s *PageSet, want ...GPA) {
	t.Helper()
	if got := pagesOf(s); !slices.Equal(got, want) {
		t.Errorf("%s: pages %#x, want %#x", what, got, want)
	}
	if s.Len() != uint64(len(want)) {
		t.Errorf("%s: Len %d, want %d", what, s.Len(), len(want))
	}
}

// started returns a started tracker with its fake guest.
func started(t *testing.T, g *Guest) (*Tracker, *fakeGuest) {
	t.Helper()
	f := newFakeGuest(g)
	tr := g.Track(f)
	if err := tr.Start(); err != nil {
		t.Fatal(err)
	}
	return tr, f
}
