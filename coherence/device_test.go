package coherence

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func newDevice(t testing.TB, c Config) *Device {
	t.Helper()
	d, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// must returns what a call gave, if it did.
func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
		return v
	}
}

func harvest(t testing.TB, d *Device, id RegionID, snoop bool) []Line {
	t.Helper()
	pages, more, err := d.Harvest(id, snoop, 0)
	if err != nil || more {
		t.Fatalf("harvest: more %v, %v", more, err)
	}
	return slices.Collect(Lines(pages))
}

// TestHarvestIsExact: driven synchronously, a snooping harvest is exactly the
// set of lines stored to since the harvest before, whatever the caches are.
func TestHarvestIsExact(t *testing.T) {
	for _, c := range []Config{
		{Caches: 1, Sets: 1, Ways: 1},
		{Caches: 4, Sets: 4, Ways: 2, Replacement: TreePLRU},
		{Caches: 3, Sets: 8, Ways: 3, Replacement: Random, Seed: 7, Scan: 2},
		{Caches: MaxCaches, Sets: 1, Ways: 4},
	} {
		random := rand.New(rand.NewPCG(1, 2))
		d := newDevice(t, c)
		if err := d.AddRegion(1, Range{100, 50}, Range{300, 100}); err != nil {
			t.Fatal(err)
		}
		for round := range 20 {
			stored := map[Line]bool{}
			for range 2000 {
				n, line := Node(random.IntN(c.Caches)), Line(random.IntN(500))
				tracked := line >= 100 && line < 150 || line >= 300 && line < 400
				var err error
				switch k := random.IntN(100); {
				case k < 60:
					_, err = d.Load(n, line)
				case k < 70 && round%3 > 0: // in every third round few stores
					_, err = d.Store(n, line)
					stored[line] = tracked
				case k == 97:
					_, err = d.IOWrite(line)
					stored[line] = tracked
				case k == 98:
					_, err = d.IORead(line)
				case k == 99:
					_, err = d.Tick()
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			var want []Line
			for line, in := range stored {
				if in {
					want = append(want, line)
				}
			}
			slices.Sort(want)
			if diff := cmp.Diff(want, harvest(t, d, 1, true)); diff != "" {
				t.Fatalf("%+v, round %d: %s", c, round, diff)
			}
			if held, most := len(d.system.home.entries), c.Caches*c.Sets*c.Ways; held > most {
				t.Fatalf("%+v: %d directory entries for caches of %d lines", c, held, most)
			}
		}
	}
}

func TestEffectsOfAccesses(t *testing.T) {
	d := newDevice(t, Config{Caches: 2, Sets: 1, Ways: 1})
	store := func(n Node, line Line) []Effect {
		t.Helper()
		return slices.Clone(must[[]Effect](t)(d.Store(n, line)))
	}
	done := func(n Node, line Line, version uint64, hit bool) Effect {
		return Effect{Kind: AccessDone, Node: n, Op: Store, Line: line, Version: version, Hit: hit}
	}
	for i, c := range []struct{ got, want []Effect }{
		{store(0, 5), []Effect{done(0, 5, 1, false)}},
		{store(0, 5), []Effect{done(0, 5, 2, true)}},
		{store(0, 6), []Effect{{Kind: WriteBack, Node: 0, Line: 5, Version: 2, Via: PutM}, done(0, 6, 1, false)}},
		{store(1, 6), []Effect{{Kind: WriteBack, Node: 0, Line: 6, Version: 1, Via: SnpResp}, done(1, 6, 1, false)}},
	} {
		if diff := cmp.Diff(c.want, c.got); diff != "" {
			t.Errorf("%d: %s", i, diff)
		}
	}
	want := Stats{Stores: 4, Hits: 1, Misses: 3, Evictions: 1, WriteBacksByEviction: 1, WriteBacksBySnoop: 1, Snoops: 1, Invalidations: 1}
	if diff := cmp.Diff(want, d.Stats()); diff != "" {
		t.Error(diff)
	}
	for _, err := range []error{
		second(d.Load(2, 0)), second(d.Load(-1, 0)), second(d.Store(0, lastLine+1)), second(d.IOWrite(lastLine + 1)),
	} {
		if !errors.Is(err, ErrCache) && !errors.Is(err, ErrRange) {
			t.Errorf("bad access: %v", err)
		}
	}
}

func second(_ []Effect, err error) error { return err }

// TestStateRestore: with a save and a restore in the middle a device reports
// what it reports without.
func TestStateRestore(t *testing.T) {
	config := Config{Caches: 2, Sets: 4, Ways: 2, Versions: true}
	d := newDevice(t, config)
	check := must[[]Effect](t)
	if err := errors.Join(d.AddRegion(7, Range{0, 64}), d.AddRegion(3, Range{60, 70}, Range{200, 1})); err != nil {
		t.Fatal(err)
	}
	for _, line := range []Line{1, 61, 129, 200, 300} {
		check(d.Store(1, line))
	}
	check(d.StopRegion(7))
	check(d.Store(0, 62))

	if _, err := d.system.State(); !errors.Is(err, ErrBusy) {
		t.Errorf("state with a written line in a cache: %v", err)
	}
	text, err := json.Marshal(must[State](t)(d.State()))
	if err != nil {
		t.Fatal(err)
	}
	var saved State
	if err := json.Unmarshal(text, &saved); err != nil {
		t.Fatal(err)
	}
	restored := newDevice(t, config)
	if err := restored.Restore(saved); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(saved, must[State](t)(restored.State())); diff != "" {
		t.Error(diff)
	}
	for _, d := range []*Device{d, restored} {
		check(d.Store(0, 63))
		if got, want := harvest(t, d, 3, true), []Line{61, 62, 63, 129, 200}; !slices.Equal(got, want) {
			t.Errorf("region 3: %v, want %v", got, want)
		}
		if got, want := harvest(t, d, 7, true), []Line{1, 61}; !slices.Equal(got, want) {
			t.Errorf("region 7, stopped: %v, want %v", got, want)
		}
		if e := check(d.Load(0, 300)); e[0].Version != 1 {
			t.Errorf("line 300: %v", e)
		}
	}
	if err := restored.Restore(saved); !errors.Is(err, ErrBusy) {
		t.Errorf("restore into a used device: %v", err)
	}
}

func TestStateOfABusySystem(t *testing.T) {
	s, err := NewSystem(Config{Caches: 1, Sets: 1, Ways: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Access(0, Load, 5); err != nil {
		t.Fatal(err)
	}
	if _, err := s.State(); !errors.Is(err, ErrBusy) {
		t.Errorf("state with a message in flight: %v", err)
	}
	if err := s.Restore(State{}); !errors.Is(err, ErrBusy) {
		t.Errorf("restore with a message in flight: %v", err)
	}
	if err := s.Settle(); err != nil {
		t.Fatal(err)
	}
	if err := s.Restore(State{}); !errors.Is(err, ErrBusy) {
		t.Errorf("restore with a line in a cache: %v", err)
	}
}

func TestRestoreRefuses(t *testing.T) {
	good := RegionState{ID: 1, Ranges: []Range{{10, 10}}, Pending: []PageMask{{0, 1 << 10}}}
	region := func(change func(*RegionState)) State {
		r := good
		change(&r)
		return State{Regions: []RegionState{r}, Stats: Stats{Loads: 1}}
	}
	for name, saved := range map[string]State{
		"region twice":    {Regions: []RegionState{good, good}},
		"no lines":        region(func(r *RegionState) { r.Ranges = nil }),
		"range too long":  region(func(r *RegionState) { r.Ranges = []Range{{1, 1 << 58}} }),
		"range overflows": region(func(r *RegionState) { r.Ranges = []Range{{2, 1<<64 - 1}} }),
		"pending outside": region(func(r *RegionState) { r.Pending = []PageMask{{0, 1 << 9}} }),
		"page beyond":     region(func(r *RegionState) { r.Pending = []PageMask{{1 << 58, 1 << 10}} }),
		"empty mask":      region(func(r *RegionState) { r.Pending = []PageMask{{0, 0}} }),
		"memory beyond":   {Memory: []LineVersion{{1 << 58, 1}}},
	} {
		d := newDevice(t, Config{Caches: 1, Sets: 1, Ways: 1})
		if err := d.Restore(saved); !errors.Is(err, ErrState) {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(State{}, must[State](t)(d.State())); diff != "" {
			t.Errorf("%s: changed: %s", name, diff)
		}
	}
}

func TestConfigRefuses(t *testing.T) {
	good := Config{Caches: 2, Sets: 4, Ways: 4}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"no caches":        func(c *Config) { c.Caches = 0 },
		"too many caches":  func(c *Config) { c.Caches = MaxCaches + 1 },
		"no sets":          func(c *Config) { c.Sets = 0 },
		"negative sets":    func(c *Config) { c.Sets = -4 },
		"sets":             func(c *Config) { c.Sets = 3 },
		"huge sets":        func(c *Config) { c.Sets = 1 << 62 },
		"no ways":          func(c *Config) { c.Ways = 0 },
		"too many ways":    func(c *Config) { c.Ways = 65 },
		"too many lines":   func(c *Config) { c.Caches, c.Sets = 256, 1<<18 },
		"replacement":      func(c *Config) { c.Replacement = Random + 1 },
		"PLRU of any ways": func(c *Config) { c.Replacement, c.Ways = TreePLRU, 3 },
		"scan":             func(c *Config) { c.Scan = -1 },
	} {
		c := good
		change(&c)
		if _, err := New(c); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReplacement(t *testing.T) {
	const ways = 4
	evicted := func(r Replacement, seed uint64, touched ...int) (victims []int) {
		rule := newReplacer(Config{Sets: 2, Ways: ways, Replacement: r, Seed: seed}, 0)
		for _, way := range touched {
			rule.touch(1, way)
			rule.touch(0, ways-1-way) // another set, which must not matter
		}
		for range ways {
			way := rule.victim(1)
			victims = append(victims, way)
			rule.touch(1, way)
		}
		return victims
	}
	for _, c := range []struct {
		rule    Replacement
		touched []int
		want    []int
	}{
		{LRU, []int{0, 1, 2, 3}, []int{0, 1, 2, 3}},
		{LRU, []int{0, 1, 2, 3, 1, 0}, []int{2, 3, 1, 0}},
		// The tree points away from 0, then within each half away from the last touched.
		{TreePLRU, []int{0, 1, 2, 3, 1, 0}, []int{2, 1, 3, 0}},
	} {
		if got := evicted(c.rule, 0, c.touched...); !slices.Equal(got, c.want) {
			t.Errorf("%v after %v: %v, want %v", c.rule, c.touched, got, c.want)
		}
	}
	// A fill is a touch: each new line evicts the oldest.
	d := newDevice(t, Config{Caches: 1, Sets: 1, Ways: 2})
	for _, line := range []Line{1, 2, 3, 4} {
		must[[]Effect](t)(d.Store(0, line))
	}
	for line, want := range map[Line]bool{1: false, 2: false, 3: true, 4: true} {
		if s, _ := d.system.caches[0].find(line); (s != nil) != want {
			t.Errorf("line %d: held %v, want %v", line, s != nil, want)
		}
	}
	sequence := func(seed uint64) (v []int) {
		rule := newReplacer(Config{Ways: ways, Replacement: Random, Seed: seed}, 0)
		for range 50 {
			v = append(v, rule.victim(0))
		}
		return v
	}
	if !slices.Equal(sequence(1), sequence(1)) || slices.Equal(sequence(1), sequence(2)) {
		t.Error("random replacement does not follow its seed")
	}
}

func TestRangesAreJoined(t *testing.T) {
	for _, c := range []struct{ ranges, want []Range }{
		{[]Range{{5, 1}}, []Range{{5, 1}}},
		{[]Range{{8, 2}, {0, 4}}, []Range{{0, 4}, {8, 2}}},
		{[]Range{{4, 4}, {0, 4}}, []Range{{0, 8}}},
		{[]Range{{0, 10}, {2, 3}, {9, 2}, {0, 1}}, []Range{{0, 11}}},
		{[]Range{{lastLine, 1}, {0, uint64(lastLine)}}, []Range{{0, 1 << 58}}},
	} {
		got, err := normalize(c.ranges)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, %v, want %v", c.ranges, got, err, c.want)
		}
	}
}
