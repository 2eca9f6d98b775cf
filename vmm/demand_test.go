package vmm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fineline-vmm/fineline/coherence/track"
	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/vmm/vmmtest"
)

// pager brings the missing pages of a machine from the machine that it was saved from.
type pager struct {
	t      *testing.T
	source *memory.Guest
	demand *memory.Demand
	mem    missing // demand, or what knows the lines of its pages too
	absent *memory.PageSet
}

// missing is memory that comes by the page.
type missing interface {
	Next(ctx context.Context) (memory.GPA, error)
	Fill(gpa memory.GPA, fn func(page []byte) error) (bool, error)
}

// demandClone is cloneMachine without the memory: all that the source has touched is missing. Half of it holds something
// that is not true any more.
func demandClone(t *testing.T, m *Machine, cfg Config) (*Machine, *pager) {
	t.Helper()
	if err := memory.CheckDemand(); err != nil {
		t.Skip(err)
	}
	clone := cloneMachineThen(t, m, cfg, func(*memory.Guest) {})
	absent, err := m.Memory().DataPages()
	if err != nil {
		t.Fatal(err)
	}
	stale := bytes.Repeat([]byte{0xcc}, memory.PageSize) // INT3
	absent.Range(func(gpa memory.GPA) bool {
		if gpa/memory.PageSize%2 == 0 {
			err = clone.Memory().WriteAt(gpa, stale)
		}
		return err == nil
	})
	if err != nil {
		t.Fatal(err)
	}
	demand, err := clone.Memory().Demand(absent)
	if err != nil {
		t.Fatal(err)
	}
	return clone, &pager{t, m.Memory(), demand, demand, absent}
}

// bring fills one page.
func (p *pager) bring(gpa memory.GPA) {
	if _, err := p.mem.Fill(gpa, func(page []byte) error { return p.source.ReadAt(gpa, page) }); err != nil && !errors.Is(err, memory.ErrClosed) {
		p.t.Errorf("fill %#x: %v", uint64(gpa), err)
	}
}

// answer brings what is waited for until nothing is missing or ctx ends.
func (p *pager) answer(ctx context.Context) {
	for {
		gpa, err := p.mem.Next(ctx)
		if err != nil {
			return
		}
		p.bring(gpa)
	}
}

// push brings all pages in random order.
func (p *pager) push(rng *rand.Rand) {
	var pages []memory.GPA
	p.absent.Range(func(gpa memory.GPA) bool { pages = append(pages, gpa); return true })
	rng.Shuffle(len(pages), func(i, j int) { pages[i], pages[j] = pages[j], pages[i] })
	for _, gpa := range pages {
		p.bring(gpa)
	}
}

func seeded(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// collectGarbage keeps the collector running until the test ends: a Go thread that faulted on a missing page would stop
// all others (design law 4).
func collectGarbage(t *testing.T) {
	var over atomic.Bool
	var done sync.WaitGroup
	done.Go(func() {
		for !over.Load() {
			runtime.GC()
		}
	})
	t.Cleanup(func() {
		over.Store(true)
		done.Wait()
	})
}

// TestDemandRuns: a guest without memory runs as if it had it: page tables, code, stacks and data come when they are touched, or
// from elsewhere in any order.
func TestDemandRuns(t *testing.T) {
	collectGarbage(t)
	for _, cpus := range []int{1, 4} {
		for _, push := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d vCPUs, pushed %t", cpus, push), func(t *testing.T) {
				rng := seeded(t)
				source, _ := dirtyMachine(t, cpus, "pages=512 lines=4 rate=0", false)
				steps := check(t, source)
				m, p := demandClone(t, source, Config{})
				if err := m.Resume(); err != nil {
					t.Fatal(err)
				}
				var all sync.WaitGroup
				all.Go(func() { p.answer(t.Context()) })
				if push {
					all.Go(func() { p.push(rng) })
				}
				awaitSteps(t, m, steps+1000)
				if !push { // what the guest does not touch
					all.Go(func() { p.push(rng) })
				}
				all.Wait()
				if err := p.demand.Close(); err != nil {
					t.Error(err)
				}
				check(t, m)
			})
		}
	}
}

// view copies all pages that can be seen.
func view(t *testing.T, mem *memory.Guest, pages *memory.PageSet) map[memory.GPA][]byte {
	t.Helper()
	seen := map[memory.GPA][]byte{}
	pages.Range(func(gpa memory.GPA) bool {
		if _, err := mem.TryViewPage(gpa, func(page []byte) { seen[gpa] = bytes.Clone(page) }); err != nil {
			t.Fatal(err)
		}
		return true
	})
	return seen
}

// wantStill fails if a page of a paused machine is not what it was before.
func (p *pager) wantStill(m *Machine, before map[memory.GPA][]byte) {
	p.t.Helper()
	for gpa, page := range view(p.t, m.Memory(), p.absent) {
		if was, ok := before[gpa]; ok && !bytes.Equal(was, page) {
			p.t.Fatalf("page %#x changed while the machine was paused", uint64(gpa))
		}
	}
}

// wantComplete: nothing is missing any more, so the machine can be saved, and its guest goes on to so many steps without the
// Demand.
func (p *pager) wantComplete(m *Machine, steps uint64) {
	p.t.Helper()
	if err := m.Pause(); err != nil {
		p.t.Fatal(err)
	}
	if _, err := m.Save(true); err != nil {
		p.t.Errorf("nothing is missing and yet: %v", err)
	}
	if err := p.demand.Close(); err != nil {
		p.t.Error(err)
	}
	if err := m.Resume(); err != nil {
		p.t.Fatal(err)
	}
	awaitSteps(p.t, m, steps)
	check(p.t, m)
}

// TestDemandPause: a machine whose vCPUs wait for memory can be paused at any time, no instruction is completed then though
// pages arrive, and it goes on where it was.
func TestDemandPause(t *testing.T) {
	for _, cpus := range []int{1, 3} {
		t.Run(fmt.Sprint(cpus), func(t *testing.T) {
			rng := seeded(t)
			source, _ := dirtyMachine(t, cpus, "pages=256 lines=4 rate=0", false)
			steps := check(t, source)
			m, p := demandClone(t, source, Config{})
			stuck := 0
			for m.Memory().Absent() > 0 {
				if err := m.Resume(); err != nil {
					t.Fatal(err)
				}
				gpa, err := p.demand.Next(t.Context()) // somebody waits
				if err != nil {
					break
				}
				for range rng.IntN(3) {
					runtime.Gosched()
				}
				if err := m.Pause(); err != nil {
					t.Fatal(err)
				}
				if rng.IntN(8) == 0 { // it takes a while to find out that it cannot be
					if _, err := m.Save(true); err != nil {
						if !errors.Is(err, memory.ErrMissing) {
							t.Fatal(err)
						}
						stuck++
					}
				}
				before := view(t, m.Memory(), p.absent)
				p.bring(gpa)
				if rng.IntN(8) == 0 {
					p.push(rng)
				}
				p.wantStill(m, before)
			}
			t.Logf("%d pauses left a vCPU within an instruction", stuck)
			p.wantComplete(m, steps+1000)
		})
	}
}

// TestDemandHeldPage: the page that a vCPU waits for arrives while the machine is paused.
func TestDemandHeldPage(t *testing.T) {
	source, _ := dirtyMachine(t, 2, "pages=64 rate=0", false)
	steps := check(t, source)
	m, p := demandClone(t, source, Config{})
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.demand.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.Pause(); err != nil {
		t.Fatal(err)
	}
	p.push(seeded(t))
	if m.Memory().Absent() != 0 {
		t.Errorf("%d pages are absent", m.Memory().Absent())
	}
	if err := p.demand.Close(); err != nil { // while paused
		t.Error(err)
	}
	want := view(t, source.Memory(), p.absent)
	for gpa, page := range view(t, m.Memory(), p.absent) {
		if !bytes.Equal(page, want[gpa]) {
			t.Errorf("page %#x is not the source's", uint64(gpa))
		}
	}
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
	awaitSteps(t, m, steps+1000)
	check(t, m)
}

// TestDemandClose: closing ends all waiting, of vCPUs and accessors.
func TestDemandClose(t *testing.T) {
	source, _ := dirtyMachine(t, 2, "pages=64 rate=0", false)
	check(t, source)
	t.Run("the machine", func(t *testing.T) {
		m, p := demandClone(t, source, Config{})
		if err := m.Resume(); err != nil {
			t.Fatal(err)
		}
		gpa, err := p.demand.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		read := make(chan error)
		go func() {
			_, err := m.Memory().LoadUint8(gpa)
			read <- err
		}()
		m.Stop()
		if err := m.Memory().Abandon(); err != nil {
			t.Error(err)
		}
		if err := <-read; !errors.Is(err, memory.ErrClosed) {
			t.Errorf("a read ended with %v", err)
		}
	})
	t.Run("the demand", func(t *testing.T) {
		m, p := demandClone(t, source, Config{})
		if err := m.Resume(); err != nil {
			t.Fatal(err)
		}
		gpa, err := p.demand.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := p.demand.Close(); err != nil {
			t.Error(err)
		}
		if o := awaitEnd(t, m); o.Kind != EndedByError {
			t.Errorf("outcome %+v", o)
		} else {
			t.Log(o.Err)
		}
		if _, err := m.Memory().LoadUint8(gpa); !errors.Is(err, memory.ErrMissing) {
			t.Errorf("a read ended with %v", err)
		}
	})
}

// TestDemandArm: who changes the slots while a vCPU waits for a page that does not come gives up when the machine is paused,
// and is in nobody's way.
func TestDemandArm(t *testing.T) {
	source, _ := dirtyMachine(t, 2, "pages=64 rate=0", false)
	check(t, source)
	for _, mode := range []track.Mode{track.Diff, track.Stores} {
		m, p := demandClone(t, source, Config{})
		if err := m.Resume(); err != nil {
			t.Fatal(err)
		}
		if _, err := p.demand.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		c, err := m.Lines().NewContext(track.ContextOptions{Mode: mode})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Register([]track.Range{region(t, source)}); err != nil {
			t.Fatal(err)
		}
		armed := make(chan error)
		go func() { armed <- c.Arm() }()
		if err := m.Pause(); err != nil {
			t.Fatal(err)
		}
		if err := <-armed; err != nil && !errors.Is(err, memory.ErrMissing) {
			t.Errorf("%s: %v", mode, err)
		} else {
			t.Logf("%s: %v", mode, err)
		}
		if err := m.Resume(); err != nil {
			t.Error(err)
		}
		p.push(seeded(t))
		if err := p.demand.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestDemandReset: a guest that is reset while memory is missing starts over, and what arrives late changes nothing.
func TestDemandReset(t *testing.T) {
	source, _ := dirtyMachine(t, 2, "pages=64 rate=0", false)
	check(t, source)
	out := &vmmtest.SerialLog{}
	m, p := demandClone(t, source, Config{SerialOut: out})
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
	gpa, err := p.demand.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m.post(event{next: reset})
	waitFor(t, out, 0, "dirty ready")
	p.bring(gpa)
	p.push(seeded(t))
	if err := p.demand.Close(); err != nil {
		t.Error(err)
	}
	check(t, m)
}

// TestDemandLines: tracking by the guest's device and by its program goes on without memory: its rings and lists are missing, too.
func TestDemandLines(t *testing.T) {
	rng := seeded(t)
	source, _, model, region := linesMachine(t, 2, "vcpus=2 pages=32 steps=200")
	if err := source.Pause(); err != nil {
		t.Fatal(err)
	}
	out := &vmmtest.SerialLog{}
	m, p := demandClone(t, source, Config{SerialOut: out})
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() { p.answer(t.Context()) })
	c := tracked(t, m, track.Diff, region) // while its pages are missing
	for round := 1; round <= 3; round++ {
		_, changed := playRound(t, m, out, model, round)
		got := map[memory.GPA]uint64{}
		if _, err := c.Harvest(0, func(p track.Page) { got[p.GPA] = p.Lines }); err != nil {
			t.Fatal(err)
		}
		for page, lines := range changed {
			if missing := lines &^ got[page]; missing != 0 {
				t.Errorf("round %d: page %#x lacks lines %#x", round, uint64(page), missing)
			}
		}
	}
	p.push(rng)
	all.Wait()
	if err := p.demand.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c.Harvest(0, func(track.Page) {}); err != nil {
		t.Fatal(err)
	}
	_, changed := playRound(t, m, out, model, 4)
	compareLines(t, "when all is there", harvest(t, c), changed)
}

// TestDemandAccess: stores that exit wait in Go for their page, on the vCPU's thread, and a pause finds them there.
func TestDemandAccess(t *testing.T) {
	source, _ := dirtyMachine(t, 2, "pages=24 lines=2 rate=0", false)
	steps := check(t, source)
	m, p := demandClone(t, source, Config{})
	watched := region(t, source)
	c := tracked(t, m, track.Stores, watched)
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
	inside := 0
	for inside < 8 {
		gpa, err := p.demand.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if uint64(gpa-watched.Base) < watched.SizeBytes {
			inside++
			if err := m.Pause(); err != nil {
				t.Fatal(err)
			}
			p.bring(gpa)
			if seen, err := m.Memory().TryViewPage(gpa, func([]byte) {}); seen || err != nil {
				t.Errorf("page %#x is not held back, %v", uint64(gpa), err)
			}
			if err := m.Resume(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		p.bring(gpa)
	}
	p.push(seeded(t))
	if err := p.demand.Close(); err != nil {
		t.Error(err)
	}
	awaitSteps(t, m, steps+100)
	check(t, m)
	if got := harvest(t, c); len(got) < inside {
		t.Errorf("stores to %d pages were seen, want %d", len(got), inside)
	}
}
