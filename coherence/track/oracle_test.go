package track

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/fineline-vmm/fineline/memory"
)

// model is what one context ought to report.
type model struct {
	c        *Context
	mode     Mode
	ranges   ranges
	armed    bool
	baseline []byte // of all RAM, for Diff
	found    lines
}

func (m *model) stored(gpa memory.GPA, n int) {
	all := lines{}
	all.add(gpa, n)
	for page, mask := range all {
		if mask &= m.ranges.lines(page); mask != 0 && m.armed && m.mode != Diff {
			m.found[page] |= mask
		}
	}
}

// look does what Diff does, slowly: whole is all RAM.
func (m *model) look(whole []byte, gpaOf func(int) memory.GPA) {
	for off := 0; m.mode == Diff && off < len(whole); off += LineBytes {
		gpa := gpaOf(off)
		page, bit := gpa&^(memory.PageSize-1), uint64(1)<<(gpa/LineBytes%LinesPerPage)
		if m.armed && m.ranges.lines(page)&bit != 0 && !bytes.Equal(whole[off:off+LineBytes], m.baseline[off:off+LineBytes]) {
			m.found[page] |= bit
		}
	}
	copy(m.baseline, whole)
}

// TestOracle runs random programs: stores of all widths, silent or not, of two vCPUs and of the VMM; ranges that
// come and go; contexts that stop and start; harvests in pieces. What each context reports must be what a slow
// model says.
func TestOracle(t *testing.T) {
	for _, o := range []Options{{}, {Baseline: Twin}} {
		for seed := range uint64(12) {
			t.Run(fmt.Sprintf("baseline %d seed %d", o.Baseline, seed), func(t *testing.T) { oracle(t, o, seed) })
		}
	}
}

func oracle(t *testing.T, o Options, seed uint64) {
	g := newTestGuest(t, o)
	r := rand.New(rand.NewPCG(seed, 1))
	const window = 24 * memory.PageSize // of RAM at 0, and as much at high
	gpaOf := func(off int) memory.GPA {
		if off < window {
			return memory.GPA(off)
		}
		return high + memory.GPA(off-window)
	}
	whole := make([]byte, 2*window)
	read := func() {
		must(t, g.mem.ReadAt(0, whole[:window]))
		must(t, g.mem.ReadAt(high, whole[window:]))
	}
	var models []*model
	for _, mode := range []Mode{Diff, Stores, Homed} {
		models = append(models, &model{
			c: g.context(ContextOptions{Mode: mode}), mode: mode, found: lines{}, baseline: make([]byte, len(whole)),
		})
	}
	randomRanges := func() []Range {
		var list []Range
		for range 1 + r.IntN(4) {
			first := r.IntN(window/LineBytes - 1)
			list = append(list, Range{gpaOf(r.IntN(2)*window + first*LineBytes), uint64(1+r.IntN(min(200, window/LineBytes-first))) * LineBytes})
		}
		return list
	}
	for step := range 3000 {
		m := models[r.IntN(len(models))]
		switch op := r.IntN(100); {
		case op < 80:
			n := []int{1, 2, 4, 8, 16, 32, 64, 300}[r.IntN(8)]
			gpa := gpaOf(r.IntN(2)*window + r.IntN(window-n))
			p := make([]byte, n)
			must(t, g.mem.ReadAt(gpa, p))
			if r.IntN(3) > 0 { // else silent
				p[r.IntN(n)] ^= byte(1 + r.IntN(255))
			}
			for _, m := range models {
				m.stored(gpa, n)
			}
			if r.IntN(4) == 0 {
				must(t, g.mem.WriteAt(gpa, p))
			} else {
				g.store(r.IntN(2), gpa, p)
			}
		case op < 84:
			g.load(r.IntN(2), gpaOf(r.IntN(2*window-8)), make([]byte, 1))
		case op < 92:
			if !m.armed && len(m.found) == 0 {
				continue
			}
			read()
			m.look(whole, gpaOf)
			got, _ := g.harvest(m.c, r.IntN(5))
			if got.String() != m.found.String() {
				t.Fatalf("step %d, %s: %v, want %v", step, m.mode, got, m.found)
			}
			m.found = lines{}
		case op < 95:
			list := randomRanges()
			read()
			m.look(whole, gpaOf)
			must(t, m.c.Register(list))
			m.ranges = m.ranges.union(joined(list))
		case op < 97:
			if len(m.ranges) == 0 {
				continue
			}
			whole := m.ranges[r.IntN(len(m.ranges))]
			part := Range{whole.Base + memory.GPA(r.IntN(int(whole.SizeBytes/LineBytes)))*LineBytes, LineBytes}
			must(t, m.c.Unregister([]Range{part}))
			m.ranges = m.ranges.minus(ranges{part})
			for page := range m.found {
				if m.found[page] &= m.ranges.lines(page); m.found[page] == 0 {
					delete(m.found, page)
				}
			}
		case m.armed:
			read()
			m.look(whole, gpaOf)
			must(t, m.c.Stop())
			m.armed = false
		default:
			must(t, m.c.Arm())
			read()
			copy(m.baseline, whole)
			m.armed, m.found = true, lines{}
		}
	}
}
