package track

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/fineline-vmm/fineline/memory"
)

// TestMissingPages: what is tracked arrives late. The engine waits for no page, reports no arrival, loses no store, and is exact
// again once all is there.
func TestMissingPages(t *testing.T) {
	if err := memory.CheckDemand(); err != nil {
		t.Skip(err)
	}
	for seed := range uint64(12) {
		for _, kind := range []Baseline{Hash, Twin} {
			testMissingPages(t, seed, kind)
		}
	}
}

func testMissingPages(t *testing.T, seed uint64, kind Baseline) {
	g := newTestGuest(t, Options{Baseline: kind})
	r := rand.New(rand.NewPCG(seed, 3))
	const pages = 64
	if seed%2 == 0 { // else holes
		g.store(0, 0, bytes.Repeat([]byte{1}, pages*memory.PageSize))
	}
	absent := g.mem.NewPageSet()
	var order []memory.GPA
	for _, i := range r.Perm(pages)[:pages*3/4] {
		absent.Add(memory.GPA(i) * memory.PageSize)
		order = append(order, memory.GPA(i)*memory.PageSize)
	}
	d, err := g.mem.Demand(absent)
	must(t, err)
	c := g.context(ContextOptions{Mode: Diff}, Range{0, pages * memory.PageSize})
	if seed%3 == 0 {
		saved := ContextState{Mode: Diff, Armed: true, Began: true, Ranges: c.ranges.encode()}
		must(t, c.Close())
		c, err = g.e.RestoreContext(saved)
		must(t, err)
		must(t, g.e.Resume())
	} else {
		must(t, c.Arm())
	}
	stored := lines{}
	harvest := func() {
		got, found := g.harvest(c, 0)
		for page, mask := range stored {
			if got[page]&mask != mask {
				t.Errorf("seed %d: page %#x has %#x, %#x were written", seed, page, got[page], mask)
			}
		}
		for _, p := range found {
			if stored[p.GPA] == 0 || !p.Inexact && p.Lines&^stored[p.GPA] != 0 {
				t.Errorf("seed %d: page %#x reports %#x, %#x were written", seed, p.GPA, p.Lines, stored[p.GPA])
			}
		}
		stored = lines{}
	}
	value := byte(100) // no store is silent
	fill := func() (gpa memory.GPA) {
		gpa, order = order[0], order[1:]
		filled, err := d.Fill(gpa, func(page []byte) error {
			copy(page, bytes.Repeat([]byte{byte(seed), 7}, memory.PageSize/2))
			return nil
		})
		if !filled || err != nil {
			t.Fatal(filled, err)
		}
		return gpa
	}
	for len(order) > 0 {
		switch r.IntN(5) {
		case 0:
			harvest()
		case 1, 2:
			fill()
		case 3: // a page arrives and is written while the engine looks
			g.e.mu.Lock() // after Resume there is a look of its own
			g.src.during = func() {
				gpa := fill()
				g.store(0, gpa, []byte{byte(seed) + 1, 8})
				stored.add(gpa, 2)
				g.src.during = nil
			}
			g.e.mu.Unlock()
			harvest()
		case 4:
			gpa := memory.GPA(r.IntN(pages*memory.PageSize/64) * 64)
			if !d.Has(gpa) {
				value++
				g.store(0, gpa, []byte{value, value ^ 1})
				stored.add(gpa, 2)
			}
		}
	}
	harvest()
	harvest() // all baselines are taken now
	g.store(0, 0x2000, []byte{201})
	g.want("exact again", c, lines{0x2000: 1})
	must(t, d.Close())
	must(t, c.Stop())
}
