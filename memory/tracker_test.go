package memory

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

// Design law 3: every way in which this process can store is reported.
func TestEveryStoreIsDirty(t *testing.T) {
	g := newTestGuest(t, testRegions)
	tr, f := started(t, g)
	page := testHigh + 65*PageSize
	for name, store := range map[string]func() error{
		"WriteAt":     func() error { return g.WriteAt(page+7, []byte{1}) },
		"StoreUint8":  func() error { return g.StoreUint8(page+4095, 1) },
		"StoreUint16": func() error { return g.StoreUint16(page+4094, 1) },
		"StoreUint32": func() error { return g.StoreUint32(page+4, 1) },
		"StoreUint64": func() error { return g.StoreUint64(page, 1) },
		"the guest":   func() error { f.store(page+8, 1); return nil },
	} {
		if err := store(); err != nil {
			t.Fatal(err)
		}
		got := g.NewPageSet()
		if err := tr.Collect(got); err != nil {
			t.Fatal(err)
		}
		wantPages(t, name, got, page)
		got.Clear()
		if err := tr.Collect(got); err != nil {
			t.Fatal(err)
		}
		wantPages(t, name+", collected before", got)
	}
	// A range over regions and over words of the map; Collect adds to the set.
	got := g.NewPageSet()
	got.Add(testHigh)
	if err := g.WriteAt(5*PageSize-1, make([]byte, PageSize+2)); err != nil {
		t.Fatal(err)
	}
	if err := g.WriteAt(testHigh+63*PageSize, make([]byte, 2*PageSize)); err != nil {
		t.Fatal(err)
	}
	if err := tr.Collect(got); err != nil {
		t.Fatal(err)
	}
	wantPages(t, "ranges", got, 4*PageSize, 5*PageSize, 6*PageSize, testHigh, testHigh+63*PageSize, testHigh+64*PageSize)
}

func TestTrackerStates(t *testing.T) {
	g := newTestGuest(t, testRegions)
	broken := errors.New("broken")
	f := newFakeGuest(g)
	tr, other := g.Track(f), g.Track(newFakeGuest(g))
	set := g.NewPageSet()

	if err := tr.Collect(set); !errors.Is(err, ErrNotTracking) {
		t.Errorf("collect before start: %v", err)
	}
	if err := tr.Stop(); err != nil {
		t.Errorf("stop before start: %v", err)
	}
	f.startErr = broken
	if err := tr.Start(); !errors.Is(err, broken) {
		t.Errorf("failed start: %v", err)
	}
	f.startErr = nil
	if err := g.StoreUint8(0, 1); err != nil {
		t.Fatal(err)
	}
	if err := tr.Start(); err != nil {
		t.Fatalf("start after a failed one: %v", err)
	}
	if err := tr.Start(); !errors.Is(err, ErrTracking) {
		t.Errorf("second start: %v", err)
	}
	if err := other.Start(); !errors.Is(err, ErrTracking) {
		t.Errorf("start of another: %v", err)
	}
	if err := tr.Collect(set); err != nil || set.Len() != 0 {
		t.Errorf("stores before start: %d pages, %v", set.Len(), err)
	}
	f.collectErr = broken
	if err := g.StoreUint8(0, 2); err != nil {
		t.Fatal(err)
	}
	if err := tr.Collect(set); !errors.Is(err, broken) {
		t.Errorf("failed collect: %v", err)
	}
	f.collectErr = nil
	if err := tr.Collect(set); err != nil {
		t.Error(err)
	}
	wantPages(t, "after a failed collect", set, 0)
	f.stopErr = broken
	if err := tr.Stop(); !errors.Is(err, broken) {
		t.Errorf("failed stop: %v", err)
	}
	if err := other.Start(); err != nil {
		t.Errorf("start of another after stop: %v", err)
	}
}

// TestTrackerLosesNothing copies what is collected while others store, by every
// accessor and as the guest. When all is quiet, one more collection must make
// the copy equal to memory. Short bursts, since only the last store to a page
// can show a loss.
func TestTrackerLosesNothing(t *testing.T) {
	const writers, bursts, storesPerBurst = 4, 300, 60
	g := newTestGuest(t, testRegions)
	tr, f := started(t, g)
	regions := g.Regions()
	dirty := g.NewPageSet()
	copied := make(map[GPA][]byte)
	collect := func() {
		dirty.Clear()
		if err := tr.Collect(dirty); err != nil {
			t.Fatal(err)
		}
		dirty.Range(func(p GPA) bool {
			if copied[p] == nil {
				copied[p] = make([]byte, PageSize)
			}
			if err := g.ReadAt(p, copied[p]); err != nil {
				t.Fatal(err)
			}
			return true
		})
	}
	for burst := range bursts {
		var wg sync.WaitGroup
		var left atomic.Int32
		left.Store(writers)
		for w := range writers {
			wg.Go(func() {
				defer left.Add(-1)
				rnd := rand.New(rand.NewPCG(uint64(burst), uint64(w)))
				for range storesPerBurst {
					r := regions[rnd.IntN(len(regions))]
					gpa := r.Base + GPA(rnd.Uint64N(r.SizeBytes)&^7)
					if err := storeSomehow(g, f, rnd, gpa); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for left.Load() > 0 {
			collect()
		}
		wg.Wait()
		collect()
		compareCopy(t, g, copied)
	}
}

func storeSomehow(g *Guest, f *fakeGuest, rnd *rand.Rand, gpa GPA) error {
	v := rnd.Uint64()
	switch rnd.IntN(6) {
	case 0:
		f.store(gpa, v)
		return nil
	case 1:
		p := make([]byte, min(512, PageSize-gpa%PageSize))
		for i := 0; i < len(p); i += 8 {
			binary.LittleEndian.PutUint64(p[i:], v)
		}
		return g.WriteAt(gpa, p)
	default:
		return storeWidth(g, gpa, 1<<rnd.IntN(4), v)
	}
}

func compareCopy(t *testing.T, g *Guest, copied map[GPA][]byte) {
	t.Helper()
	zero := make([]byte, PageSize)
	for _, r := range g.Regions() {
		for p := r.Base; p < r.Base+GPA(r.SizeBytes); p += PageSize {
			want := copied[p]
			if want == nil {
				want = zero
			}
			err := g.ViewPage(p, func(page []byte) {
				if !bytes.Equal(page, want) {
					t.Fatalf("page %#x: a store was lost", p)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// onlyVMM is the source of a hypervisor whose guest stores nothing.
type onlyVMM struct{}

func (onlyVMM) Start() error           { return nil }
func (onlyVMM) Collect(*PageSet) error { return nil }
func (onlyVMM) Stop() error            { return nil }

// TestTrackerRace makes two stores to two cache lines of a page, the second by
// the accessor under test, while the other side collects and copies without
// pause, for many rounds. It fails (on two processors) for a mark before the
// bytes and for a mark that is skipped when the bit is set, see the package
// comment.
func TestTrackerRace(t *testing.T) {
	if runtime.GOMAXPROCS(0) < 2 {
		t.Skip("two sides that never run at once cannot race: needs two processors")
	}
	const rounds = 20000
	const at = GPA(64) // of the second store, 8 bytes
	page := make([]byte, PageSize)
	for name, store := range map[string]func(g *Guest, n uint64) error{
		"WriteAt word": func(g *Guest, n uint64) error {
			var p [8]byte
			binary.LittleEndian.PutUint64(p[:], n)
			return g.WriteAt(at, p[:])
		},
		"WriteAt page": func(g *Guest, n uint64) error {
			binary.LittleEndian.PutUint64(page[at:], n)
			return g.WriteAt(0, page)
		},
		"StoreUint8":  func(g *Guest, n uint64) error { return g.StoreUint8(at+1, uint8(n)) },
		"StoreUint16": func(g *Guest, n uint64) error { return g.StoreUint16(at+2, uint16(n)) },
		"StoreUint32": func(g *Guest, n uint64) error { return g.StoreUint32(at+4, uint32(n)) },
		"StoreUint64": func(g *Guest, n uint64) error { return g.StoreUint64(at, n) },
	} {
		t.Run(name, func(t *testing.T) {
			g := newTestGuest(t, []Region{{SizeBytes: PageSize}})
			tr := g.Track(onlyVMM{})
			if err := tr.Start(); err != nil {
				t.Fatal(err)
			}
			var begun, ended atomic.Uint64 // rounds
			var writer sync.WaitGroup
			defer writer.Wait()
			defer begun.Store(rounds) // lets the writer end when the test fails early
			writer.Go(func() {
				for n := uint64(1); n <= rounds; n++ {
					await(&begun, n)
					if err := errors.Join(g.StoreUint8(0, uint8(n)), store(g, n)); err != nil {
						t.Error(err)
					}
					ended.Store(n)
				}
			})
			dirty := g.NewPageSet()
			var copied, final [8]byte
			collect := func() {
				dirty.Clear()
				err := tr.Collect(dirty)
				if dirty.Has(0) {
					err = errors.Join(err, g.ReadAt(at, copied[:]))
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			for n := uint64(1); n <= rounds; n++ {
				begun.Store(n)
				for i := 1; ended.Load() < n; i++ {
					collect()
					if i%1000 == 0 {
						runtime.Gosched()
					}
				}
				collect()
				if err := g.ReadAt(at, final[:]); err != nil || final != copied {
					t.Fatalf("round %d: copied %x, memory has %x, %v", n, copied, final, err)
				}
			}
		})
	}
}

// await returns when v has reached n. It mostly spins: a handover by the
// scheduler takes so long that the two sides would never meet.
func await(v *atomic.Uint64, n uint64) {
	for i := 1; v.Load() < n; i++ {
		if i%1000 == 0 {
			runtime.Gosched()
		}
	}
}

// TestWordsDoNotTear stores 8- and 16-bit words beside a neighbour in the same 32
// bits that the guest changes: neither side may undo the other's store.
func TestWordsDoNotTear(t *testing.T) {
	g := newTestGuest(t, testRegions)
	const rounds = 20000
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			gpa := GPA(2 * i)
			for n := range uint16(rounds) {
				if err := g.StoreUint16(gpa, n); err != nil {
					t.Error(err)
					return
				}
				if v, err := g.LoadUint16(gpa); v != n || err != nil {
					t.Errorf("16 bits at %d: %d, want %d, %v", gpa, v, n, err)
					return
				}
			}
		})
		wg.Go(func() {
			gpa := GPA(4 + i)
			for n := range rounds {
				if err := g.StoreUint8(gpa, uint8(n)); err != nil {
					t.Error(err)
					return
				}
				if v, err := g.LoadUint8(gpa); v != uint8(n) || err != nil {
					t.Errorf("8 bits at %d: %d, want %d, %v", gpa, v, uint8(n), err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// Two Trackers see every store each, whoever collects first, and one that stops takes nothing
// from the other.
func TestTrackersShareTheSource(t *testing.T) {
	g := newTestGuest(t, testRegions)
	f := newFakeGuest(g)
	one, two := g.Track(f), g.Track(f)
	collect := func(tr *Tracker) *PageSet {
		t.Helper()
		set := g.NewPageSet()
		if err := tr.Collect(set); err != nil {
			t.Fatal(err)
		}
		return set
	}
	for _, tr := range []*Tracker{one, two} {
		if err := tr.Start(); err != nil {
			t.Fatal(err)
		}
	}
	f.store(PageSize, 1)
	if err := g.StoreUint8(testHigh, 1); err != nil {
		t.Fatal(err)
	}
	wantPages(t, "one collects first", collect(one), PageSize, testHigh)
	wantPages(t, "one again", collect(one))
	f.store(2*PageSize, 1)
	wantPages(t, "two later", collect(two), PageSize, 2*PageSize, testHigh)
	wantPages(t, "one after two", collect(one), 2*PageSize)

	f.store(3*PageSize, 1)
	broken := errors.New("broken")
	f.collectErr = broken
	if err := two.Collect(g.NewPageSet()); !errors.Is(err, broken) {
		t.Errorf("failed collect: %v", err)
	}
	f.collectErr = nil
	f.store(4*PageSize, 1)
	wantPages(t, "two collects", collect(two), 3*PageSize, 4*PageSize)
	if err := two.Stop(); err != nil {
		t.Fatal(err)
	}
	f.store(5*PageSize, 1)
	wantPages(t, "one alone", collect(one), 3*PageSize, 4*PageSize, 5*PageSize)
	f.stopErr = broken
	if err := one.Stop(); !errors.Is(err, broken) {
		t.Errorf("the last stop did not stop the source: %v", err)
	}
}

// An observer is told the place of each store of this process, but of those it made for the guest.
// stillGuest can be looked at.
type stillGuest struct{ *fakeGuest }

func (f stillGuest) Peek(into *PageSet) error {
	if err := f.Collect(into); err != nil {
		return err
	}
	into.Range(func(gpa GPA) bool { f.store(gpa, 1); return true })
	return nil
}

// TestCollectStill: what was collected while the guest stood still is collected once more, for
// a guest that runs on after all; what the VMM stored is not.
func TestCollectStill(t *testing.T) {
	g := newTestGuest(t, testRegions)
	f := newFakeGuest(g)
	tr, other := g.Track(stillGuest{f}), (*Tracker)(nil)
	for _, trackers := range []int{1, 2} {
		if err := tr.Start(); err != nil {
			t.Fatal(err)
		}
		if trackers == 2 {
			other = g.Track(tr.src)
			if err := other.Start(); err != nil {
				t.Fatal(err)
			}
		}
		f.store(PageSize, 7)
		if err := g.WriteAt(2*PageSize, []byte{1}); err != nil {
			t.Fatal(err)
		}
		want := func(what string, collect func(*PageSet) error, pages ...GPA) {
			t.Helper()
			got := g.NewPageSet()
			if err := collect(got); err != nil {
				t.Fatal(err)
			}
			wantPages(t, what, got, pages...)
		}
		want("still", tr.CollectStill, PageSize, 2*PageSize)
		want("still again", tr.CollectStill, PageSize)
		want("own", tr.CollectOwn)
		if err := g.WriteAt(3*PageSize, []byte{1}); err != nil {
			t.Fatal(err)
		}
		want("own, stored", tr.CollectOwn, 3*PageSize)
		if trackers == 2 {
			want("the other's", other.CollectOwn, PageSize, 2*PageSize, 3*PageSize)
		}
		want("all", tr.Collect, PageSize)
		want("all again", tr.Collect)
		if err := tr.Stop(); err != nil {
			t.Fatal(err)
		}
		if err := tr.CollectStill(g.NewPageSet()); !errors.Is(err, ErrNotTracking) {
			t.Errorf("stopped: %v", err)
		}
	}
}

func TestObserve(t *testing.T) {
	g := newTestGuest(t, testRegions)
	type store struct {
		gpa GPA
		n   uint64
	}
	var seen []store
	g.Observe(func(gpa GPA, n uint64) { seen = append(seen, store{gpa, n}) })
	for _, err := range []error{
		g.StoreUint8(3, 1), g.StoreUint16(4, 1), g.StoreUint32(8, 1), g.StoreUint64(testHigh+8, 1),
		g.WriteAt(5*PageSize-1, make([]byte, 2)), // in two regions
		g.WriteGuestStore(7, []byte{1}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := []store{{3, 1}, {4, 2}, {8, 4}, {testHigh + 8, 8}, {5*PageSize - 1, 1}, {5 * PageSize, 1}}
	if !slices.Equal(seen, want) {
		t.Errorf("told %v, want %v", seen, want)
	}
	g.Observe(nil)
	if err := g.StoreUint8(3, 1); err != nil || len(seen) != len(want) {
		t.Errorf("after the observer has gone: %v, %v", seen[len(want):], err)
	}
	if n := testing.AllocsPerRun(100, func() { _ = g.WriteAt(0, []byte{1}) }); n != 0 {
		t.Errorf("WriteAt allocates %v times", n)
	}
}
