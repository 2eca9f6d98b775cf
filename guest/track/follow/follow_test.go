package follow

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/fineline-vmm/fineline/guest/track/abi"
	"github.com/fineline-vmm/fineline/guest/track/driver"
	"github.com/fineline-vmm/fineline/guest/track/procmem"
	"github.com/fineline-vmm/fineline/guest/track/tracktest"
)

const (
	base     = 0x7f0000000000
	simPages = 24
)

// simulation is a program, its kernel, a device and one who copies what is reported.
type simulation struct {
	rng      *rand.Rand
	machine  *tracktest.Machine
	space    *tracktest.Space
	follower *Follower
	mirror   map[uint64][PageBytes]byte
	during   func() // what happens inside a harvest
}

func newSimulation(t *testing.T, seed uint64, mode uint32, keep int) *simulation {
	t.Helper()
	s := &simulation{rng: rand.New(rand.NewPCG(seed, 1)), machine: tracktest.NewMachine(), mirror: map[uint64][PageBytes]byte{}}
	s.space = tracktest.NewSpace(s.machine)
	s.space.Keep = keep
	d, err := driver.Open(s.machine, s.machine.DMA(driver.DMAPages))
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.Create(mode)
	if err != nil {
		t.Fatal(err)
	}
	s.follower = NewFollower(s.space, c)
	if err := s.follower.SetRanges([]Range{{base, simPages * PageBytes}}); err != nil {
		t.Fatal(err)
	}
	for range 40 {
		s.program()
	}
	step := func() {
		if s.during != nil {
			s.during()
		}
	}
	s.space.BeforeRead = step
	s.machine.Before = func(abi.Op) { step() }
	return s
}

func (s *simulation) page() uint64 { return base + s.rng.Uint64N(simPages)*PageBytes }

// filler is small, so that foreign contents often equal ours.
func (s *simulation) filler() byte { return byte(s.rng.IntN(3)) }

// program does what only the program itself can do.
func (s *simulation) program() {
	switch n := s.rng.IntN(20); {
	case n == 0:
		s.space.Drop(s.page(), s.filler())
	case n == 1:
		s.space.Exchange(s.page(), s.page())
	default:
		s.write()
	}
}

func (s *simulation) write() {
	line := bytes.Repeat([]byte{s.filler()}, LineBytes)
	s.space.Store(s.page()+s.rng.Uint64N(4)*LineBytes, line[:1+s.rng.IntN(LineBytes)])
}

// kernel does what the kernel may do at any time.
func (s *simulation) kernel() {
	switch n := s.rng.IntN(8); {
	case n == 0:
		s.space.SwapOut(s.page(), s.filler())
	case n == 1:
		s.space.Frame(s.page())
	default:
		s.space.Move(s.page(), s.filler())
	}
}

func (s *simulation) copyAll() {
	for i := range uint64(simPages) {
		s.mirror[base+i*PageBytes] = s.space.Page(base + i*PageBytes)
	}
}

func (s *simulation) copyReported(r *Report) {
	for _, p := range r.Pages {
		copied, now := s.mirror[p.Address], s.space.Page(p.Address)
		if p.Flags&Gone != 0 {
			now = [PageBytes]byte{} // doc.go, "Pages in no frame"
		}
		for i := range 64 {
			if p.Lines>>i&1 != 0 {
				copy(copied[i*LineBytes:(i+1)*LineBytes], now[i*LineBytes:])
			}
		}
		s.mirror[p.Address] = copied
	}
}

// lost returns what differs between the program's memory and the copies.
func (s *simulation) lost() error {
	for i := range uint64(simPages) {
		address := base + i*PageBytes
		now, copied := s.space.Page(address), s.mirror[address]
		if now != copied {
			for l := range 64 {
				if !bytes.Equal(now[l*LineBytes:(l+1)*LineBytes], copied[l*LineBytes:(l+1)*LineBytes]) {
					return fmt.Errorf("page %d line %d holds %d, the copy %d", i, l, now[l*LineBytes], copied[l*LineBytes])
				}
			}
		}
	}
	return nil
}

const simWindows = 30

// runDiff has the program at rest during harvests and copies, as mode diff wants; the kernel never rests.
func runDiff(t *testing.T, seed uint64, harvest func(*Follower) (*Report, error)) error {
	t.Helper()
	s := newSimulation(t, seed, abi.ModeDiff, simPages)
	harvesting := true
	s.space.Avoid = func(address, frame uint64) bool { // doc.go, "Devices that compare values"
		was, ok := s.follower.spans[0].state[(address-base)/PageBytes].frame()
		return harvesting && ok && was == frame
	}
	s.during = func() {
		if s.rng.IntN(2) == 0 {
			s.kernel()
		}
	}
	if err := s.follower.Start(); err != nil {
		t.Fatal(err)
	}
	s.copyAll()
	for w := range simWindows {
		harvesting = false
		for range s.rng.IntN(150) {
			if s.rng.IntN(3) == 0 {
				s.program()
			} else {
				s.kernel()
			}
		}
		harvesting = true
		r, err := harvest(s.follower)
		if err != nil {
			t.Fatalf("seed %d: window %d: %v", seed, w, err)
		}
		s.copyReported(r)
		if err := s.lost(); err != nil {
			return fmt.Errorf("seed %d: window %d: %w", seed, w, err)
		}
	}
	return nil
}

// runStores lets the program write (but not mremap) at all times, and frames be used again at once. Only after
// it has stopped must copies be equal.
func runStores(t *testing.T, seed uint64, harvest func(*Follower) (*Report, error)) error {
	t.Helper()
	s := newSimulation(t, seed, abi.ModeStores, int(seed%3)) // frames hardly rest
	s.during = func() {
		if s.rng.IntN(2) == 0 {
			s.kernel()
		} else {
			s.write()
		}
	}
	if err := s.follower.Start(); err != nil {
		t.Fatal(err)
	}
	s.copyAll()
	for range simWindows {
		for range s.rng.IntN(60) {
			s.during()
			s.program()
		}
		r, err := harvest(s.follower)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		s.copyReported(r)
	}
	for _, s.during = range []func(){s.kernel, nil} { // doc.go: one harvest, or two if a page came back during it
		r, err := harvest(s.follower)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		s.copyReported(r)
	}
	if err := s.lost(); err != nil {
		return fmt.Errorf("seed %d: %w", seed, err)
	}
	return nil
}

func seeds() uint64 {
	if testing.Short() {
		return 40
	}
	return 120
}

func TestNothingIsLost(t *testing.T) {
	for seed := range seeds() {
		if err := runDiff(t, seed, (*Follower).Harvest); err != nil {
			t.Errorf("diff: %v", err)
		}
		if err := runStores(t, seed, (*Follower).Harvest); err != nil {
			t.Errorf("stores: %v", err)
		}
	}
}

// TestWrongOrdersAreCaught harvests in orders that doc.go argues against: each loses writes, and the
// simulation notices.
func TestWrongOrdersAreCaught(t *testing.T) {
	for name, canary := range map[string]struct {
		run     func(*testing.T, uint64, func(*Follower) (*Report, error)) error
		harvest func(*Follower) (*Report, error)
	}{
		"page table first": {runDiff, func(f *Follower) (*Report, error) {
			changes, err := f.enrol()
			if err != nil {
				return nil, err
			}
			records, err := f.look()
			if err != nil {
				return nil, err
			}
			return f.report(records, changes), nil
		}},
		"no second look": {runDiff, func(f *Follower) (*Report, error) {
			records, err := f.look()
			if err != nil {
				return nil, err
			}
			changes, err := f.scan()
			if err != nil {
				return nil, err
			}
			if err := f.settle(changes); err != nil {
				return nil, err
			}
			return f.report(records, changes), f.unregisterStale()
		}},
		"moved pages by the line": {runStores, func(f *Follower) (*Report, error) {
			records, err := f.look()
			if err != nil {
				return nil, err
			}
			if _, err := f.enrol(); err != nil {
				return nil, err
			}
			return f.report(records, nil), nil
		}},
		"registered too late": {runStores, func() func(f *Follower) (*Report, error) {
			late := map[*Follower][]change{}
			return func(f *Follower) (*Report, error) {
				if err := f.settle(late[f]); err != nil {
					return nil, err
				}
				records, err := f.look()
				if err != nil {
					return nil, err
				}
				late[f], err = f.scan()
				if err != nil {
					return nil, err
				}
				return f.report(records, late[f]), f.unregisterStale()
			}
		}()},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range 10 * seeds() {
				if err := canary.run(t, seed, canary.harvest); err != nil {
					t.Logf("caught: %v", err)
					return
				}
			}
			t.Error("the wrong order was not noticed")
		})
	}
}

// TestKinds: each way that a page can change is told as what it is, and lines of pages in place exactly.
func TestKinds(t *testing.T) {
	s := newSimulation(t, 0, abi.ModeDiff|abi.CreateCountBytes, simPages)
	at := func(i uint64) uint64 { return base + i*PageBytes }
	for i := range uint64(simPages) {
		s.space.Drop(at(i), 0)
	}
	for i := range uint64(5) {
		s.space.Frame(at(i))
	}
	s.space.Share(at(0), at(10))
	if err := s.follower.Start(); err != nil {
		t.Fatal(err)
	}
	if r, err := s.follower.Harvest(); err != nil || len(r.Pages) != 0 || r.Present != 6 {
		t.Fatalf("nothing happened: %+v, %v", r, err)
	}
	s.space.Store(at(0)+3*LineBytes, []byte{1, 2})
	s.space.Store(at(0)+63*LineBytes+60, []byte{1, 2, 3})
	s.space.Move(at(1), 9)
	s.space.SwapOut(at(2), 9)
	s.space.Drop(at(3), 9)
	s.space.Frame(at(12))
	r, err := s.follower.Harvest()
	if err != nil {
		t.Fatal(err)
	}
	lines := Page{Lines: 1<<63 | 1<<3, ChangedBytes: 5, Flags: Counted}
	want := []Page{
		{at(0), lines.Lines, 5, Counted}, {at(1), AllLines, 0, Moved}, {at(2), AllLines, 0, Moved},
		{at(3), AllLines, 0, Gone}, {at(10), lines.Lines, 5, Counted}, {at(12), AllLines, 0, New},
	}
	if fmt.Sprint(r.Pages) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", r.Pages, want)
	}
	if r.Present != 5 || s.machine.Registered() != 4 {
		t.Errorf("%d pages in %d frames, want 5 in 4", r.Present, s.machine.Registered())
	}
	s.space.Frame(at(2))
	if r, err = s.follower.Harvest(); err != nil || fmt.Sprint(r.Pages) != fmt.Sprint([]Page{{at(2), AllLines, 0, Moved}}) {
		t.Errorf("back from swap: %v, %v", r, err)
	}
	if err := s.follower.SetRanges([]Range{{at(0), 1}, {at(10), PageBytes}}); err != nil {
		t.Fatal(err)
	}
	if r, err = s.follower.Harvest(); err != nil || len(r.Pages) != 0 || s.machine.Registered() != 1 {
		t.Errorf("after a change of ranges: %+v, %v, %d frames", r, err, s.machine.Registered())
	}
}

// TestAFrameThatComesToAnotherPage is looked at anew: what the device knew of it was its former page's.
func TestAFrameThatComesToAnotherPage(t *testing.T) {
	s, at := still(t, 2)
	five := bytes.Repeat([]byte{5}, LineBytes)
	s.space.Store(at(1), five)
	if err := s.follower.Start(); err != nil {
		t.Fatal(err)
	}
	frame := s.space.Frame(at(0))
	s.space.Move(at(0), 0) // its frame is free and holds zeros when the device looks
	s.space.Keep, s.space.Avoid = 0, func(_, f uint64) bool { return f != frame }
	s.during = func() {
		s.during = func() { s.space.Move(at(1), 0); s.during = nil } // between H and P into that frame
	}
	if r, err := s.follower.Harvest(); err != nil || len(r.Pages) != 2 || r.Pages[1].Flags != Moved {
		t.Fatalf("%+v, %v", r, err)
	}
	s.space.Store(at(1), make([]byte, LineBytes))
	want := fmt.Sprint([]Page{{at(1), 1, 0, 0}})
	if r, err := s.follower.Harvest(); err != nil || fmt.Sprint(r.Pages) != want {
		t.Errorf("zeros over fives: %+v, %v, want %s", r, err, want)
	}
}

// TestAPageThatDoesNotStay is reported until it does, even if it goes for good.
func TestAPageThatDoesNotStay(t *testing.T) {
	s, at := still(t, 1)
	if err := s.follower.Start(); err != nil {
		t.Fatal(err)
	}
	s.during = func() { s.space.Move(at(0), 0) }
	if r, err := s.follower.Harvest(); err != nil || fmt.Sprint(r.Pages) != fmt.Sprint([]Page{{at(0), AllLines, 0, Moved}}) {
		t.Errorf("%+v, %v", r, err)
	}
	s.during = nil
	s.space.Drop(at(0), 0)
	if r, err := s.follower.Harvest(); err != nil || fmt.Sprint(r.Pages) != fmt.Sprint([]Page{{at(0), AllLines, 0, Gone}}) {
		t.Errorf("%+v, %v", r, err)
	}
	if n := s.machine.Registered(); n != 0 {
		t.Errorf("%d frames are registered", n)
	}
}

// TestAPageThatMovesWhileTheContextStarts is watched by the line when Start has returned.
func TestAPageThatMovesWhileTheContextStarts(t *testing.T) {
	s, at := still(t, 1)
	s.machine.Before = func(op abi.Op) {
		if op == abi.OpStart {
			s.space.Move(at(0), 0)
		}
	}
	if err := s.follower.Start(); err != nil {
		t.Fatal(err)
	}
	s.space.Store(at(0), []byte{1})
	if r, err := s.follower.Harvest(); err != nil || fmt.Sprint(r.Pages) != fmt.Sprint([]Page{{at(0), 1, 0, 0}}) {
		t.Errorf("%+v, %v", r, err)
	}
}

// still is a simulation whose first n pages are in memory, and the others are not.
func still(t *testing.T, n uint64) (*simulation, func(uint64) uint64) {
	t.Helper()
	s := newSimulation(t, 0, abi.ModeDiff, simPages)
	at := func(i uint64) uint64 { return base + i*PageBytes }
	for i := range uint64(simPages) {
		s.space.Drop(at(i), 0)
	}
	s.space.Keep = 1 << 20
	for i := range n {
		s.space.Frame(at(i))
	}
	return s, at
}

// TestAQuietProgramCostsNoCommands beside the harvest itself.
func TestAQuietProgramCostsNoCommands(t *testing.T) {
	s := newSimulation(t, 0, abi.ModeDiff, simPages)
	if err := s.follower.Start(); err != nil {
		t.Fatal(err)
	}
	s.machine.Commands()
	if _, err := s.follower.Harvest(); err != nil {
		t.Fatal(err)
	}
	if got := s.machine.Commands(); len(got) != 1 || got[0] != abi.OpHarvest {
		t.Errorf("commands %v", got)
	}
}

func TestAFailureSticks(t *testing.T) {
	s := newSimulation(t, 0, abi.ModeDiff, simPages)
	if err := s.follower.Start(); err != nil {
		t.Fatal(err)
	}
	s.machine.MaxRanges = 0
	for i := range uint64(simPages) {
		s.space.Frame(base + i*PageBytes)
		s.space.Move(base+i*PageBytes, 0)
	}
	for range 2 {
		if _, err := s.follower.Harvest(); err == nil {
			t.Fatal("no error")
		}
		s.machine.MaxRanges = 1 << 16
	}
}

func TestNormalize(t *testing.T) {
	got, err := Normalize([]Range{{0x5001, 1}, {0x1000, 0x1001}, {0x2fff, 2}, {0x9000, 0x1000}})
	want := []Range{{0x1000, 0x3000}, {0x5000, 0x1000}, {0x9000, 0x1000}}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%x, %v", got, err)
	}
	for _, bad := range []Range{{0, 0}, {^uint64(0), 1}, {1 << 56, 1}, {4096, 1 << 56}, {4096, ^uint64(0)}} {
		if _, err := Normalize([]Range{bad}); err == nil {
			t.Errorf("%x passed", bad)
		}
	}
	got = Subtract([]Range{{0x1000, 0x5000}, {0x8000, 0x2000}}, []Range{{0x2000, 0x1000}, {0x5000, 0x4000}})
	want = []Range{{0x1000, 0x1000}, {0x3000, 0x2000}, {0x9000, 0x1000}}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("subtract: %x", got)
	}
}

// staticTable is a large address space in place.
type staticTable []procmem.Entry

func (t staticTable) Read(address uint64, entries []procmem.Entry) error {
	copy(entries, t[(address-base)/PageBytes:])
	return nil
}

type nullContext struct{}

func (nullContext) Register([]abi.Range) error          { return nil }
func (nullContext) Unregister([]abi.Range) error        { return nil }
func (nullContext) Start() error                        { return nil }
func (nullContext) Harvest(emit func(abi.Record)) error { return nil }

// BenchmarkWindow is a window over 500 MiB of which one page in a thousand has moved.
func BenchmarkWindow(b *testing.B) {
	const n = 500 << 20 / PageBytes
	table := make(staticTable, n)
	for i := range table {
		table[i] = procmem.Present(uint64(1000 + i))
	}
	f := NewFollower(table, nullContext{})
	if err := f.SetRanges([]Range{{base, n * PageBytes}}); err != nil {
		b.Fatal(err)
	}
	if err := f.Start(); err != nil {
		b.Fatal(err)
	}
	next := uint64(1000 + n)
	b.SetBytes(n * PageBytes)
	for b.Loop() {
		for i := 0; i < n; i += 1000 {
			table[i] = procmem.Present(next)
			next++
		}
		if _, err := f.Harvest(); err != nil {
			b.Fatal(err)
		}
	}
}
