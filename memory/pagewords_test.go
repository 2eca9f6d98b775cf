package memory

import (
	"slices"
	"testing"
)

func TestRangeWords(t *testing.T) {
	g, err := New([]Region{{Base: 3 * PageSize, SizeBytes: 70 * PageSize}, {Base: 100 * PageSize, SizeBytes: 65 * PageSize}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	s := g.NewPageSet()
	for _, page := range []GPA{3, 66, 67, 72, 163, 164} {
		s.Add(page * PageSize)
	}
	type word struct {
		base GPA
		bits uint64
	}
	var got []word
	s.RangeWords(func(base GPA, bits uint64) { got = append(got, word{base / PageSize, bits}) })
	want := []word{{3, 1 | 1<<63}, {67, 1 | 1<<5}, {100, 1 << 63}, {164, 1}}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
