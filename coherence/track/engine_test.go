package track

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/fineline-vmm/fineline/coherence"
	"github.com/fineline-vmm/fineline/coherence/baseline"
	"github.com/fineline-vmm/fineline/memory"
)

const high = memory.GPA(1 << 32)

// quietSource is the log of a guest whose stores are made by WriteGuestStore, which marks.
type quietSource struct {
	started bool
	during  func() // called by Collect; nil: nothing happens meanwhile
}

func (s *quietSource) Start() error { s.started = true; return nil }
func (s *quietSource) Stop() error  { s.started = false; return nil }
func (s *quietSource) Collect(*memory.PageSet) error {
	if s.during != nil {
		s.during()
	}
	return nil
}

// testGuest is a guest without a hypervisor: its stores obey the access that slots say.
type testGuest struct {
	testing.TB
	mem              *memory.Guest
	src              quietSource
	e                *Engine
	readOnly, absent *memory.PageSet
	exits            int
	refuse           func(readOnly, absent *memory.PageSet) bool
	reserved         []memory.GPA
}

func newTestGuest(t testing.TB, o Options) *testGuest {
	t.Helper()
	mem, err := memory.New([]memory.Region{
		{Base: 0, SizeBytes: 3*chunkBytes + 5*memory.PageSize}, {Base: high, SizeBytes: 70 * memory.PageSize},
	}, memory.Options{})
	must(t, err)
	g := &testGuest{TB: t, mem: mem}
	t.Cleanup(func() { must(t, mem.Close()) })
	g.e = g.newEngine(o)
	return g
}

func (g *testGuest) newEngine(o Options) *Engine {
	if o.Caches.Caches == 0 {
		o.Caches = coherence.Config{Caches: 2, Sets: 8, Ways: 2}
	}
	e := NewEngine(g.mem, &g.src, g, o)
	g.Cleanup(func() { must(g, e.Close()) })
	return e
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (g *testGuest) SetAccess(readOnly, absent *memory.PageSet) error {
	if g.refuse != nil && g.refuse(readOnly, absent) {
		return errRefused
	}
	g.readOnly, g.absent = readOnly, absent
	return nil
}

func (g *testGuest) Reserved() (*memory.PageSet, error) {
	set := g.mem.NewPageSet()
	for _, page := range g.reserved {
		set.Add(page)
	}
	return set, nil
}

var errRefused = errors.New("no slots are left")

// store is a store of guest code.
func (g *testGuest) store(cpu int, gpa memory.GPA, p []byte) {
	for len(p) > 0 { // the emulator splits at pages
		n := min(len(p), int(memory.PageSize-gpa%memory.PageSize))
		if g.absent != nil && (g.absent.Has(gpa) || g.readOnly.Has(gpa)) {
			g.exits++
			if !g.e.Access(cpu, gpa, p[:n], true) {
				g.Fatalf("%#x is no RAM", gpa)
			}
		} else {
			must(g, g.mem.WriteGuestStore(gpa, p[:n]))
		}
		gpa, p = gpa+memory.GPA(n), p[n:]
	}
}

func (g *testGuest) load(cpu int, gpa memory.GPA, p []byte) {
	if g.absent != nil && g.absent.Has(gpa) {
		g.e.Access(cpu, gpa, p, false)
	}
}

func (g *testGuest) context(o ContextOptions, list ...Range) *Context {
	g.Helper()
	c, err := g.e.NewContext(o)
	must(g, err)
	must(g, c.Register(list))
	return c
}

// lines is what was written, by page.
type lines map[memory.GPA]uint64

func (l lines) add(gpa memory.GPA, n int) {
	for line := gpa / LineBytes; line <= (gpa+memory.GPA(n)-1)/LineBytes; line++ {
		l[line*LineBytes&^(memory.PageSize-1)] |= 1 << (line % LinesPerPage)
	}
}

func (l lines) String() string {
	var s []string
	for page, mask := range l {
		s = append(s, fmt.Sprintf("%#x:%#x", uint64(page), mask))
	}
	slices.Sort(s)
	return fmt.Sprint(s)
}

func (g *testGuest) harvest(c *Context, max int) (got lines, pages []Page) {
	g.Helper()
	got = lines{}
	for more := true; more; {
		var err error
		last := memory.GPA(0)
		n := 0
		more, err = c.Harvest(max, func(p Page) {
			if n++; n > 1 && p.GPA <= last {
				g.Errorf("page %#x after %#x", p.GPA, last)
			}
			last = p.GPA
			got[p.GPA] |= p.Lines
			pages = append(pages, p)
		})
		must(g, err)
		if max > 0 && n > max || more && n != max {
			g.Errorf("%d pages, at most %d were asked for, more %t", n, max, more)
		}
	}
	return got, pages
}

func (g *testGuest) want(what string, c *Context, want lines) {
	g.Helper()
	if got, _ := g.harvest(c, 0); got.String() != want.String() {
		g.Errorf("%s: %v, want %v", what, got, want)
	}
}

// A silent store is clean for Diff and counts for the others; that is the only difference.
func TestModes(t *testing.T) {
	for _, mode := range []Mode{Diff, Stores, Homed} {
		t.Run(mode.String(), func(t *testing.T) {
			g := newTestGuest(t, Options{})
			g.store(0, 0x3000, []byte{1, 2, 3})
			c := g.context(ContextOptions{Mode: mode}, Range{0x2040, 0x2000}, Range{high, memory.PageSize})
			must(t, c.Arm())
			g.want("nothing", c, lines{})
			g.store(0, 0x303e, []byte{7, 7, 7, 7})  // over two lines
			g.store(1, 0x2fff, []byte{9, 9})        // over two pages
			g.store(1, 0x2000, []byte{9})           // the line before the range
			must(t, g.mem.WriteAt(high, []byte{5})) // the VMM's own
			want := lines{0x2000: 1 << 63, 0x3000: 3, high: 1}
			g.want("stores", c, want)
			g.want("again", c, lines{})
			g.store(0, 0x303e, []byte{7, 7, 7, 7})
			g.load(0, 0x3080, make([]byte, 8))
			silent := lines{0x3000: 3}
			if mode == Diff {
				silent = lines{}
			}
			g.want("silent", c, silent)
			g.store(0, 0x3100, []byte{1})
			must(t, c.Stop())
			g.store(0, 0x3200, []byte{1})
			g.want("stopped", c, lines{0x3000: 1 << 4})
			if exits := g.exits > 0; exits != (mode != Diff) {
				t.Errorf("%d stores exited", g.exits)
			}
			if g.src.started || g.e.Metrics().BaselineBytes != 0 {
				t.Errorf("after Stop: page log on %t, %d bytes of baselines", g.src.started, g.e.Metrics().BaselineBytes)
			}
		})
	}
}

// A harvest that does not snoop misses what is pending in a cache; the next one that does has it.
func TestHarvestUnsnooped(t *testing.T) {
	g := newTestGuest(t, Options{})
	c := g.context(ContextOptions{Mode: Homed}, Range{0, memory.PageSize})
	must(t, c.Arm())
	g.store(0, 0x80, []byte{1})
	if _, err := c.HarvestUnsnooped(0, func(p Page) { t.Errorf("unsnooped: %+v", p) }); err != nil {
		t.Error(err)
	}
	g.want("snooped", c, lines{0: 1 << 2})
}

// A context that is armed later does not see what was stored before, though it is pending in a cache for
// another one, which sees it.
func TestOverlap(t *testing.T) {
	for _, mode := range []Mode{Diff, Stores, Homed} {
		g := newTestGuest(t, Options{})
		one := g.context(ContextOptions{Mode: mode}, Range{0, 2 * memory.PageSize})
		must(t, one.Arm())
		g.store(0, 0x1000, []byte{1})
		two := g.context(ContextOptions{Mode: mode}, Range{0x1000, memory.PageSize})
		must(t, two.Arm())
		g.want(mode.String()+", armed later", two, lines{})
		g.store(1, 0x1040, []byte{1})
		g.want(mode.String()+", armed first", one, lines{0x1000: 3})
		g.want(mode.String()+", armed later", two, lines{0x1000: 2})
	}
}

// A page whose accesses cannot be served is the guest's again, and reported as a whole.
func TestBlind(t *testing.T) {
	for _, mode := range []Mode{Stores, Homed} {
		g := newTestGuest(t, Options{})
		c := g.context(ContextOptions{Mode: mode}, Range{0, 2 * memory.PageSize})
		must(t, c.Arm())
		if any, err := g.e.Blind([]memory.GPA{0x5000}); any || err != nil {
			t.Errorf("a page that nobody watches: %t, %v", any, err)
		}
		if any, err := g.e.Blind([]memory.GPA{0x1000}); !any || err != nil {
			t.Errorf("a watched page: %t, %v", any, err)
		}
		g.store(0, 0x1000, []byte{1})
		g.store(0, 0x40, []byte{1})
		if g.exits != 1 {
			t.Errorf("%s: %d stores exited, want 1", mode, g.exits)
		}
		g.want(mode.String(), c, lines{0: 2, 0x1000: ^uint64(0)})
		g.store(0, 0x1000, []byte{1})
		must(t, c.Stop())
		g.want(mode.String()+", stopped", c, lines{0x1000: ^uint64(0)})
		must(t, c.Arm())
		g.store(0, 0x1000, []byte{1})
		g.want("armed again", c, lines{0x1000: 1})
		if any, err := g.e.BlindAll(); !any || err != nil {
			t.Errorf("all: %t, %v", any, err)
		}
		if any, err := g.e.BlindAll(); any || err != nil {
			t.Errorf("all again: %t, %v", any, err)
		}
		g.want("all given back", c, lines{0: ^uint64(0), 0x1000: ^uint64(0)})
	}
}

// What the processors use by themselves does not exit, and is reported as a whole.
func TestReserved(t *testing.T) {
	g := newTestGuest(t, Options{})
	g.reserved = []memory.GPA{0x1000, 0x9000}
	c := g.context(ContextOptions{Mode: Homed}, Range{0, 3 * memory.PageSize})
	must(t, c.Arm())
	if g.absent.Has(0x1000) || !g.absent.Has(0) {
		t.Error("a page table exits, or nothing does")
	}
	g.want("harvest", c, lines{0x1000: ^uint64(0)})
}

// Where the guest's access cannot be changed, what was before holds: ranges, and what is watched.
func TestAccessRefused(t *testing.T) {
	for _, mode := range []Mode{Stores, Homed} {
		g := newTestGuest(t, Options{})
		c := g.context(ContextOptions{Mode: mode}, Range{0, memory.PageSize})
		g.refuse = func(readOnly, absent *memory.PageSet) bool { return readOnly.Len()+absent.Len() > 1 }
		must(t, c.Arm())
		if err := c.Register([]Range{{0x2000, memory.PageSize}}); !errors.Is(err, errRefused) {
			t.Errorf("%s: register: %v", mode, err)
		}
		if got := c.Ranges(); !slices.Equal(got, []Range{{0, memory.PageSize}}) {
			t.Errorf("%s: ranges %v after a failure", mode, got)
		}
		g.store(0, 0x80, []byte{1})
		g.store(0, 0x2080, []byte{1})
		full := g.refuse
		g.refuse = func(*memory.PageSet, *memory.PageSet) bool { return true }
		if err := c.Unregister([]Range{{0x80, 64}}); !errors.Is(err, errRefused) {
			t.Errorf("%s: unregister: %v", mode, err)
		}
		g.refuse = full
		g.want(mode.String(), c, lines{0: 4})
		other := g.context(ContextOptions{Mode: mode}, Range{0x5000, memory.PageSize})
		if err := other.Arm(); !errors.Is(err, errRefused) {
			t.Errorf("%s: arm: %v", mode, err)
		}
		if _, err := other.Harvest(0, func(Page) {}); !errors.Is(err, ErrState) {
			t.Errorf("%s: it is armed after a failure: %v", mode, err)
		}
		g.store(0, 0x40, []byte{1})
		g.want(mode.String()+" again", c, lines{0: 2})
		saved, err := c.State()
		must(t, err)
		must(t, g.e.Close())
		// A machine that was moved runs, though nothing can be watched there.
		g.refuse = func(readOnly, absent *memory.PageSet) bool { return readOnly.Len()+absent.Len() > 0 }
		g.e = g.newEngine(Options{})
		c, err = g.e.RestoreContext(saved)
		must(t, err)
		must(t, g.e.Resume())
		g.want(mode.String()+", moved", c, lines{0: ^uint64(0)})
		// Nor is it lost when nothing works at all.
		g.refuse = func(*memory.PageSet, *memory.PageSet) bool { return true }
		_, err = g.e.RestoreContext(saved)
		must(t, err)
		for range 2 {
			if err := g.e.Resume(); !errors.Is(err, errRefused) {
				t.Errorf("%s: resume: %v", mode, err)
			}
		}
		g.refuse = nil
	}
}

// Ranges that cost slots are few; the host's own are not counted among the guest's.
func TestRangeLimits(t *testing.T) {
	g := newTestGuest(t, Options{MaxRanges: 2})
	var many []Range
	for i := range memory.GPA(MaxExactRanges + 1) {
		many = append(many, Range{i * 128, 64})
	}
	c, err := g.e.NewContext(ContextOptions{Mode: Stores, Unlimited: true})
	must(t, err)
	if err := c.Register(many); !errors.Is(err, ErrNoSpace) {
		t.Errorf("%d ranges of stores: %v", len(many), err)
	}
	d, err := g.e.NewContext(ContextOptions{Unlimited: true})
	must(t, err)
	must(t, d.Register(many))
	guests := g.context(ContextOptions{}, many[:2]...)
	if err := guests.Register(many[2:3]); !errors.Is(err, ErrNoSpace) {
		t.Errorf("a range too many: %v", err)
	}
}

func TestBaselines(t *testing.T) {
	for _, test := range []struct {
		name    string
		o       Options
		context ContextOptions
		page    Page
	}{
		{"hash", Options{}, ContextOptions{}, Page{Lines: 4}},
		{"twin", Options{Baseline: Twin}, ContextOptions{}, Page{Lines: 4}},
		{"counting", Options{}, ContextOptions{CountBytes: true}, Page{Lines: 4, Counted: true, ChangedBytes: 2}},
		{"none", Options{Baseline: None}, ContextOptions{}, Page{Lines: ^uint64(0), Inexact: true}},
		{"hash when twins are too dear", Options{BudgetBytes: baseline.SumsBytes}, ContextOptions{CountBytes: true}, Page{Lines: 4}},
		{"no budget", Options{BudgetBytes: 1}, ContextOptions{CountBytes: true}, Page{Lines: ^uint64(0), Inexact: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newTestGuest(t, test.o)
			g.store(0, 0x1000, bytes.Repeat([]byte{3}, memory.PageSize))
			c := g.context(test.context, Range{0, 4 * memory.PageSize})
			must(t, c.Arm())
			g.store(0, 0x1080, []byte{3, 4, 4})
			test.page.GPA = 0x1000
			if _, pages := g.harvest(c, 0); !slices.Equal(pages, []Page{test.page}) {
				t.Errorf("%+v, want %+v", pages, test.page)
			}
		})
	}
}

// A context that counts bytes turns the hashes of another into twins, and neither loses a line.
func TestPromote(t *testing.T) {
	g := newTestGuest(t, Options{})
	g.store(0, 0, bytes.Repeat([]byte{1}, 4*memory.PageSize))
	one := g.context(ContextOptions{}, Range{0, 2 * memory.PageSize})
	must(t, one.Arm())
	g.store(0, 0x1040, []byte{2})
	two := g.context(ContextOptions{CountBytes: true}, Range{0x1000, 2 * memory.PageSize})
	must(t, two.Arm())
	g.store(0, 0x1080, []byte{2})
	g.store(0, 0x2080, []byte{2})
	g.want("one", one, lines{0x1000: 6})
	if _, pages := g.harvest(two, 0); len(pages) != 2 || pages[0] != (Page{GPA: 0x1000, Lines: 4, ChangedBytes: 1, Counted: true}) {
		t.Errorf("two: %+v", pages)
	}
}

func TestMisuse(t *testing.T) {
	g := newTestGuest(t, Options{MaxRanges: 3})
	c := g.context(ContextOptions{})
	want := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	for _, r := range []Range{{1, 64}, {0, 0}, {0, 65}, {1 << 40, 64}, {high - 64, 128}, {0, 1 << 63}, {^memory.GPA(63), 128}} {
		want(fmt.Sprint(r), c.Register([]Range{{0x1000, 64}, r}), ErrBadRange)
	}
	_, err := g.e.NewContext(ContextOptions{Mode: 7})
	want("mode", err, ErrBadMode)
	_, err = g.e.NewContext(ContextOptions{Mode: Stores, CountBytes: true})
	want("count", err, ErrBadMode)
	_, err = c.Harvest(0, func(Page) {})
	want("harvest before arm", err, ErrState)
	want("stop before arm", c.Stop(), ErrState)
	must(t, c.Arm())
	want("arm twice", c.Arm(), ErrState)
	want("unregister", c.Unregister([]Range{{0, 64}}), ErrNotRegistered)
	want("too many", c.Register([]Range{{0, 64}, {128, 64}, {256, 64}, {512, 64}}), ErrNoSpace)
	must(t, c.Close())
	must(t, c.Close())
	want("after close", c.Arm(), ErrState)
	want("after close", c.Register(nil), ErrState)
}
