package memory

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// needDemand skips where missing pages cannot be served.
func needDemand(t testing.TB) {
	t.Helper()
	if err := CheckDemand(); err != nil {
		t.Skip(err)
	}
}

func allPages(g *Guest) *PageSet {
	s := g.NewPageSet()
	for _, r := range g.Regions() {
		s.AddRange(r.Base, r.SizeBytes)
	}
	return s
}

func demandOf(t testing.TB, g *Guest, absent *PageSet) *Demand {
	t.Helper()
	needDemand(t)
	d, err := g.Demand(absent)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// content is what the page holds at the source, word by word.
func content(gpa GPA) uint64 { return uint64(gpa)*0x9e3779b97f4a7c15 + 1 }

func fillContent(gpa GPA) func(page []byte) error {
	return func(page []byte) error {
		for i := 0; i < PageSize; i += 8 {
			binary.LittleEndian.PutUint64(page[i:], content(gpa+GPA(i)))
		}
		return nil
	}
}

// serveAll fills what is waited for until the Demand ends.
func serveAll(d *Demand) error {
	for {
		gpa, err := d.Next(context.Background())
		if err != nil {
			return err
		}
		if _, err := d.Fill(gpa, fillContent(gpa)); err != nil {
			return err
		}
	}
}

func TestDemandFillsWhatIsTouched(t *testing.T) {
	g := newTestGuest(t, testRegions)
	d := demandOf(t, g, allPages(g))
	served := make(chan error)
	go func() { served <- serveAll(d) }()
	c := newVCPU(t, g)
	// The guest and the accessors, each word of another page.
	for i, gpa := range pagesOf(allPages(g)) {
		gpa += GPA(i % 512 * 8)
		var got uint64
		var err error
		switch i % 5 {
		case 0:
			var errno error
			v, e := c.load(gpa)
			if got = v; e != 0 {
				errno = e
			}
			err = errno
		case 1:
			got, err = g.LoadUint64(gpa)
		case 2:
			var b [8]byte
			err = g.ReadAt(gpa, b[:])
			got = binary.LittleEndian.Uint64(b[:])
		case 3:
			err = g.ViewPage(gpa&^(PageSize-1), func(page []byte) { got = binary.LittleEndian.Uint64(page[gpa%PageSize:]) })
		case 4:
			err = g.EditPage(gpa&^(PageSize-1), func(page []byte) error {
				got = binary.LittleEndian.Uint64(page[gpa%PageSize:])
				return nil
			})
		}
		if err != nil || got != content(gpa) {
			t.Fatalf("page %#x by way %d: %#x, want %#x, %v", uint64(gpa), i%5, got, content(gpa), err)
		}
	}
	if err := <-served; !errors.Is(err, ErrComplete) {
		t.Errorf("the server ended with %v", err)
	}
	if d.Len() != 0 || d.Absent().Len() != 0 {
		t.Errorf("%d pages are absent", d.Len())
	}
}

// TestDemandStoresWait: no store is lost under content that arrives, and none is done too early.
func TestDemandStoresWait(t *testing.T) {
	g := newTestGuest(t, testRegions)
	d := demandOf(t, g, allPages(g))
	go serveAll(d)
	c := newVCPU(t, g)
	for i, store := range []func(gpa GPA) error{
		func(gpa GPA) error { return g.WriteAt(gpa, []byte{9, 0, 0, 0, 0, 0, 0, 0}) },
		func(gpa GPA) error { return g.WriteGuestStore(gpa, []byte{9, 0, 0, 0, 0, 0, 0, 0}) },
		func(gpa GPA) error { return g.StoreUint64(gpa, 9) },
		func(gpa GPA) error { return errors.Join(g.StoreUint32(gpa, 9), g.StoreUint32(gpa+4, 0)) },
		func(gpa GPA) error { c.store(gpa, 9); return nil },
	} {
		gpa := testHigh + GPA(i)*PageSize
		if err := store(gpa); err != nil {
			t.Fatal(err)
		}
		if filled, err := d.Fill(gpa, func([]byte) error { t.Error("filled again"); return nil }); filled || err != nil {
			t.Errorf("late content: %v, %v", filled, err)
		}
		var page [16]byte
		if err := g.ReadAt(gpa, page[:]); err != nil {
			t.Fatal(err)
		}
		if a, b := binary.LittleEndian.Uint64(page[:]), binary.LittleEndian.Uint64(page[8:]); a != 9 || b != content(gpa+8) {
			t.Errorf("way %d: %#x, %#x", i, a, b)
		}
	}
}

// TestDemandKeepsStale: what an absent page holds is hidden from all and lent to Fill.
func TestDemandKeepsStale(t *testing.T) {
	g := newTestGuest(t, testRegions)
	needDemand(t)
	c := newVCPU(t, g)
	if err := g.StoreUint64(testHigh, 5); err != nil {
		t.Fatal(err)
	}
	if v, errno := c.load(testHigh); v != 5 || errno != 0 { // the guest has it mapped
		t.Fatal(v, errno)
	}
	absent := g.NewPageSet()
	absent.Add(testHigh)
	d := demandOf(t, g, absent)
	if seen, err := g.TryViewPage(testHigh, func([]byte) { t.Error("a missing page was shown") }); seen || err != nil {
		t.Error(seen, err)
	}
	loaded := make(chan uint64)
	go func() { v, _ := c.load(testHigh); loaded <- v }()
	if gpa, err := d.Next(context.Background()); gpa != testHigh || err != nil {
		t.Fatal(gpa, err)
	}
	broken := errors.New("broken")
	if filled, err := d.Fill(testHigh, func(page []byte) error { page[0]++; return broken }); filled || !errors.Is(err, broken) {
		t.Error(filled, err)
	}
	if !d.Has(testHigh) || d.Len() != 1 || g.Absent() != 1 {
		t.Error("a Fill that failed made the page present")
	}
	filled, err := d.Fill(testHigh, func(page []byte) error { page[0] *= 2; return nil })
	if !filled || err != nil {
		t.Error(filled, err)
	}
	if v := <-loaded; v != 12 {
		t.Errorf("the guest read %d", v)
	}
	if seen, err := g.TryViewPage(testHigh, func(page []byte) {
		if page[0] != 12 {
			t.Error(page[0])
		}
	}); !seen || err != nil {
		t.Error(seen, err)
	}
}

// TestDemandPresentPages: pages beside absent ones, holes or not, are there at once and not reported.
func TestDemandPresentPages(t *testing.T) {
	g := newTestGuest(t, testRegions)
	absent := g.NewPageSet()
	for page := testHigh; page < testHigh+67*PageSize; page += PageSize {
		switch page / PageSize % 3 {
		case 0:
			absent.Add(page)
		case 1:
			if err := g.StoreUint64(page+8, 7); err != nil {
				t.Fatal(err)
			}
		}
	}
	d := demandOf(t, g, absent)
	c := newVCPU(t, g)
	rng := rand.New(rand.NewPCG(1, 2))
	for _, i := range rng.Perm(67) {
		page := testHigh + GPA(i)*PageSize
		if absent.Has(page) {
			continue
		}
		want := uint64(0)
		if page/PageSize%3 == 1 {
			want = 7
		}
		if v, errno := c.load(page + 8); v != want || errno != 0 {
			t.Errorf("page %#x: %d, %v", uint64(page), v, errno)
		}
	}
	if d.Len() != absent.Len() {
		t.Errorf("%d pages are absent, want %d", d.Len(), absent.Len())
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if gpa, err := d.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("reported %#x, %v", uint64(gpa), err)
	}
}

// TestDemandRaces fills every page by several at once, in random order, from two senders, while vCPUs and
// accessors touch all, beside a garbage collector that never rests (design law 4).
func TestDemandRaces(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	const pages = 2048
	g := newTestGuest(t, []Region{{0, pages * PageSize}, {1 << 32, pages * PageSize}})
	d := demandOf(t, g, allPages(g))
	var over atomic.Bool
	var gc, all sync.WaitGroup
	gc.Go(func() {
		for !over.Load() {
			runtime.GC()
		}
	})
	order := func(stream uint64, fn func(gpa GPA)) {
		all.Go(func() {
			for _, i := range rand.New(rand.NewPCG(seed, stream)).Perm(2 * pages) {
				gpa := GPA(i) * PageSize
				if i >= pages {
					gpa += 1<<32 - pages*PageSize
				}
				fn(gpa)
			}
		})
	}
	var filled atomic.Uint64
	all.Go(func() {
		for {
			gpa, err := d.Next(t.Context())
			if err != nil {
				if !errors.Is(err, ErrComplete) {
					t.Error(err)
				}
				return
			}
			if ok, err := d.Fill(gpa, fillContent(gpa)); err != nil {
				t.Error(err)
			} else if ok {
				filled.Add(1)
			}
		}
	})
	for stream := range uint64(2) {
		order(stream, func(gpa GPA) {
			if ok, err := d.Fill(gpa, fillContent(gpa)); err != nil {
				t.Error(err)
			} else if ok {
				filled.Add(1)
			}
		})
	}
	for i := range uint64(3) {
		c := newVCPU(t, g)
		order(10+i, func(gpa GPA) {
			if v, errno := c.load(gpa + 8); v != content(gpa+8) || errno != 0 {
				t.Errorf("page %#x: %#x, %v", uint64(gpa), v, errno)
			}
			if errno := c.store(gpa+GPA(64+8*i), i); errno != 0 {
				t.Error(errno)
			}
		})
	}
	order(20, func(gpa GPA) {
		if v, err := g.LoadUint64(gpa + 16); v != content(gpa+16) || err != nil {
			t.Errorf("page %#x: %#x, %v", uint64(gpa), v, err)
		}
	})
	all.Wait()
	over.Store(true)
	gc.Wait()
	if filled.Load() != 2*pages || d.Len() != 0 {
		t.Errorf("%d pages filled, %d absent", filled.Load(), d.Len())
	}
	for gpa := GPA(0); gpa < pages*PageSize; gpa += PageSize {
		for i := range uint64(3) {
			if v, err := g.LoadUint64(gpa + GPA(64+8*i)); v != i || err != nil {
				t.Fatalf("page %#x: a store was lost: %#x, %v", uint64(gpa), v, err)
			}
		}
	}
}

// TestDemandEndsUnderFaults: threads whose pages KVM looks up at the very end of a Demand go on. Before Linux 6.15 they could
// hang, and the process with them (userfaults.close).
func TestDemandEndsUnderFaults(t *testing.T) {
	const pages = demandChunkBytes / PageSize
	for range 50 {
		g := newTestGuest(t, []Region{{0, demandChunkBytes}})
		absent := g.NewPageSet()
		absent.Add(0)
		d := demandOf(t, g, absent)
		if _, err := d.Fill(0, fillContent(0)); err != nil {
			t.Fatal(err)
		}
		var over atomic.Bool
		var vcpus, faulted sync.WaitGroup
		for i := range 2 {
			c := newVCPU(t, g)
			faulted.Add(1)
			vcpus.Go(func() {
				begun := sync.OnceFunc(faulted.Done)
				defer begun()
				for walks := 0; !over.Load(); walks++ {
					if err := c.walk(0, pages-i); err != nil {
						t.Error(err)
						over.Store(true)
					}
					if walks == 2 {
						begun()
					}
				}
			})
		}
		faulted.Wait()
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		<-d.served // the descriptor is closed
		over.Store(true)
		vcpus.Wait()
	}
}
