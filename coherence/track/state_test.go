package track

import (
	"bytes"
	"math/bits"
	"math/rand/v2"
	"testing"

	"github.com/fineline-vmm/fineline/memory"
)

// A saved context goes on in another engine: what was found before is there, and what is written
// from Resume on is found; nothing is lost, and only whole pages may be too many.
func TestSaveAndRestore(t *testing.T) {
	for seed := range uint64(8) {
		g := newTestGuest(t, Options{})
		r := rand.New(rand.NewPCG(seed, 2))
		mode := []Mode{Diff, Stores, Homed}[seed%3]
		c := g.context(ContextOptions{Mode: mode, CountBytes: seed == 0}, Range{0x1000, 0x8000}, Range{high + 64, 0x4000})
		g.store(0, 0x1000, bytes.Repeat([]byte{1}, 0x8000))
		must(t, c.Arm())
		stored := lines{}
		store := func(value byte) {
			gpa := memory.GPA(0x1000 + r.IntN(0x8000-8))
			p := bytes.Repeat([]byte{value}, 8)
			stored.add(gpa, 8)
			g.store(1, gpa, p)
		}
		for range 20 {
			store(2)
		}
		saved, err := c.State()
		must(t, err)
		must(t, g.e.Close())
		g.readOnly, g.absent = nil, nil
		g.e = g.newEngine(Options{})
		c, err = g.e.RestoreContext(saved)
		must(t, err)
		must(t, g.e.Resume())
		for range 20 {
			store(byte(3 + r.IntN(2)))
		}
		got, pages := g.harvest(c, 3)
		for page, mask := range stored {
			if got[page]&mask != mask {
				t.Errorf("seed %d, %s: page %#x has %#x, %#x were written", seed, mode, page, got[page], mask)
			}
		}
		for _, p := range pages {
			if !p.Inexact && p.Lines&^stored[p.GPA] != 0 {
				t.Errorf("seed %d, %s: page %#x reports %#x as exact, %#x were written", seed, mode, p.GPA, p.Lines, stored[p.GPA])
			}
		}
		g.want("all was told", c, lines{})
		g.store(0, 0x2000, []byte{77})
		g.want("exact again", c, lines{0x2000: 1})
		must(t, c.Stop())
	}
}

// Too much to save becomes whole pages, and then everything.
func TestSaveTooMuch(t *testing.T) {
	g := newTestGuest(t, Options{})
	c := g.context(ContextOptions{}, Range{0, chunkBytes})
	must(t, c.Arm())
	want := lines{}
	for i := range memory.GPA(100) {
		gpa := i * 3 * memory.PageSize
		g.store(0, gpa, []byte{1})
		want[gpa] = ^uint64(0)
	}
	must(t, g.e.look())
	out, tooMany := c.encodePages()
	if tooMany {
		t.Fatal("100 pages are too many")
	}
	must(t, g.e.Close())
	g.e = g.newEngine(Options{})
	c, err := g.e.RestoreContext(ContextState{Began: true, Ranges: ranges{{0, chunkBytes}}.encode(), FoundPages: out})
	must(t, err)
	g.want("pages", c, want)

	c, err = g.e.RestoreContext(ContextState{Armed: true, Ranges: ranges{{0x1040, 0x1000}}.encode(), FoundAll: true})
	must(t, err)
	must(t, g.e.Resume())
	g.want("everything", c, lines{0x1000: ^uint64(1), 0x2000: 1})
}

func FuzzRestoreContext(f *testing.F) {
	good := newLineSet(true)
	good.add(Page{GPA: 0x2000, Lines: 5, Counted: true, ChangedBytes: 7})
	f.Add(uint8(0), true, ranges{{0x1000, 0x2000}}.encode(), good.encode(), []byte{1, 2})
	f.Add(uint8(2), false, []byte{0xff}, []byte{1, 2}, []byte{})
	g := newTestGuest(f, Options{MaxRanges: 100})
	f.Fuzz(func(t *testing.T, mode uint8, armed bool, saved, found, pages []byte) {
		c, err := g.e.RestoreContext(ContextState{Mode: Mode(mode), Armed: armed, Ranges: saved, Found: found, FoundPages: pages})
		if err != nil {
			return
		}
		again, err := c.State()
		must(t, err)
		other, err := g.e.RestoreContext(again)
		must(t, err)
		for _, c := range []*Context{c, other} {
			c.found.each(func(p Page) {
				if bits.OnesCount64(p.Lines) == 0 || c.ranges.lines(p.GPA)&p.Lines != p.Lines {
					t.Errorf("%+v is outside of %v", p, c.ranges)
				}
			})
			must(t, c.Close())
		}
	})
}
