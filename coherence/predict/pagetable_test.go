package predict_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestTablesTell: what is near in virtual memory is named, wherever it lies, once the table is there.
func TestTablesTell(t *testing.T) {
	g := newGuest(t, "pagetable")
	if got := g.touch(500); got != nil {
		t.Errorf("without a table: %d", got)
	}
	delete(g.present, 500)
	g.p.Arrived(77, table(900, 30, 500, 8000, 20, 0, 0, 6000))
	got := g.p.Miss(500, nil, 16)
	slices.Sort(got)
	if want := []uint64{20, 30, 900, 8000}; !slices.Equal(got, want) {
		t.Errorf("named %d, want %d", got, want)
	}
}

// TestPageOfTwoEntries: a page that is mapped twice is not named for its own miss.
func TestPageOfTwoEntries(t *testing.T) {
	g := newGuest(t, "pagetable")
	g.p.Arrived(77, table(900, 30, 500, 8000, 500, 20))
	if got := g.p.Miss(500, nil, 16); len(got) == 0 || slices.Contains(got, 500) {
		t.Errorf("named %d", got)
	}
}

// TestTablesOfLargePages: behind the end of a large page comes the next in the table, elsewhere in RAM.
func TestTablesOfLargePages(t *testing.T) {
	g := newGuest(t, "pagetable")
	content := table(512, 512*40, 512*7, 512*90)
	for i := range 4 {
		content[8*i] |= 1 << 7
	}
	g.p.Arrived(3, content)
	if got := g.p.Miss(512*40+100, nil, 16); got != nil {
		t.Errorf("within a large page: %d", got)
	}
	if got, want := g.p.Miss(512*41-3, nil, 4), []uint64{512*41 - 2, 512*41 - 1, 512 * 7, 512*7 + 1}; !slices.Equal(got, want) {
		t.Errorf("at the end of one: %d, want %d", got, want)
	}
}

// TestWhatIsNoTable: pages of other content are not followed.
func TestWhatIsNoTable(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 0))
	noise := make([]byte, 4096)
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	text := bytes.Repeat([]byte("It was the best of times, it was "), 125)[:4096]
	integers := make([]byte, 4096) // below 4 GiB, half of them odd
	for i := range 512 {
		random := random.Uint32()
		copy(integers[8*i:], []byte{byte(random), byte(random >> 8), byte(random >> 16), byte(random >> 24)})
	}
	inOrder := make([]uint64, 512)
	for i := range inOrder {
		inOrder[i] = 5000 + uint64(i)
	}
	uncached := table(900, 30, 500, 8000, 20)
	for i := range 5 {
		uncached[8*i] |= 1 << 4
	}
	for what, content := range map[string][]byte{
		"zeros":        make([]byte, 4096),
		"ones":         bytes.Repeat([]byte{0xff}, 4096),
		"noise":        noise,
		"text":         text,
		"integers":     integers,
		"one page":     table(slices.Repeat([]uint64{500}, 512)...),
		"outside RAM":  table(1<<20, 1<<20+5, 1<<30, 1<<39, 500),
		"mostly one":   table(append(slices.Repeat([]uint64{500}, 100), 900, 30, 500, 8000, 20)...),
		"in order":     table(inOrder...),
		"few":          table(500, 700),
		"devices":      uncached,
		"half a table": table(900, 30, 500, 8000, 20)[:2048],
	} {
		g := newGuest(t, "pagetable")
		g.p.Arrived(1, content)
		for _, page := range []uint64{500, 900, 5004} {
			if got := g.touch(page); got != nil {
				t.Errorf("%s: after page %d: %d", what, page, got)
			}
		}
		for i := 0; i+8 <= len(content); i += 8 {
			word := uint64(content[i]) | uint64(content[i+1])<<8 | uint64(content[i+2])<<16 | uint64(content[i+3])<<24
			if got := g.touch(word >> 12); got != nil {
				t.Errorf("%s: after page %d: %d", what, word>>12, got)
				break
			}
		}
	}
}

// TestTablesAreForgotten: the oldest goes when there is no room.
func TestTablesAreForgotten(t *testing.T) {
	p := newPredictor(t, "pagetable", 1000, everything) // room for the fewest tables, 64
	p.Arrived(1, table(900, 30, 500, 800, 20))
	for i := range 63 {
		p.Arrived(2, table(uint64(i)+100, 999, uint64(i)+200, 998))
	}
	if len(p.Miss(900, nil, 4)) == 0 {
		t.Error("the first of 64 is forgotten")
	}
	p.Arrived(3, table(100, 999, 200, 998))
	if got := p.Miss(900, nil, 4); len(got) > 0 {
		t.Errorf("the first of 65 is still there: %d", got)
	}
}
