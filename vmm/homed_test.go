package vmm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fineline-vmm/fineline/coherence"
	"github.com/fineline-vmm/fineline/coherence/homed"
	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/vmm/vmmtest"
)

// homedPager is a pager of a machine whose missing memory comes by the line.
type homedPager struct {
	*pager
	lines   *homed.Memory
	brought atomic.Uint64 // lines that were waited for
}

func homedClone(t *testing.T, m *Machine, cfg Config) (*Machine, *homedPager) {
	t.Helper()
	clone, p := demandClone(t, m, cfg)
	mem, err := clone.HomeMissing(p.demand)
	if err != nil {
		t.Fatal(err)
	}
	p.mem = mem
	return clone, &homedPager{pager: p, lines: mem}
}

func (p *homedPager) bringLine(line uint64) {
	var content [coherence.LineSize]byte
	if err := p.source.ReadAt(memory.GPA(line*coherence.LineSize), content[:]); err != nil {
		p.t.Error(err)
	}
	p.brought.Add(1)
	if _, err := p.lines.FillLine(line, content[:]); err != nil && !errors.Is(err, memory.ErrClosed) {
		p.t.Errorf("fill line %#x: %v", line, err)
	}
}

// answer brings what is waited for until ctx ends: pages, and lines without the rest of their pages.
func (p *homedPager) answer(ctx context.Context, all *sync.WaitGroup) {
	all.Go(func() { p.pager.answer(ctx) })
	all.Go(func() {
		for {
			line, err := p.lines.NextLine(ctx)
			if err != nil {
				return
			}
			p.bringLine(line)
		}
	})
}

// TestHomedRuns: a guest runs without memory, of which it gets the lines that it touches and, late, the rest. The first
// misses are of what its processors use, and of code; then it is lines.
func TestHomedRuns(t *testing.T) {
	collectGarbage(t)
	for _, cpus := range []int{1, 3} {
		t.Run(fmt.Sprint(cpus), func(t *testing.T) {
			source, _ := dirtyMachine(t, cpus, "pages=256 lines=4 rate=0", false)
			steps := check(t, source)
			m, p := homedClone(t, source, Config{})
			ctx, cancel := context.WithCancel(t.Context())
			var all sync.WaitGroup
			p.answer(ctx, &all)
			if err := m.Resume(); err != nil {
				t.Fatal(err)
			}
			awaitSteps(t, m, steps+300)
			lines := p.brought.Load()
			p.push(seeded(t))
			cancel()
			all.Wait()
			if err := p.demand.Close(); err != nil {
				t.Error(err)
			}
			awaitSteps(t, m, steps+5000)
			check(t, m)
			t.Logf("%d lines were fetched", lines)
			if lines < 100 {
				t.Error("the guest hardly waited for lines")
			}
			m.homed.Load().tasks.Wait()
			if m.slots.now.exits() {
				t.Error("pages have no slot though nothing is missing")
			}
		})
	}
}

// TestHomedAsPaged: random programs, with every kind of access that KVM cannot emulate, and locked instructions of two vCPUs, leave the
// same bytes whether memory comes by the line or by the page.
func TestHomedAsPaged(t *testing.T) {
	if os.Getenv("FINELINE_TIER") == "svm" {
		t.Skip("AVX raises #UD in a guest of QEMU's emulated SVM (see TestLines), and pages that are given back lose the bytes of REP OUTS there")
	}
	rng := seeded(t)
	for vcpus := 1; vcpus <= 2; vcpus++ {
		cmdline := fmt.Sprintf("vcpus=%d pages=6 steps=100 seed=%d kinds=scalar,string,sse,atomic,load,avx", vcpus, rng.Uint32())
		t.Run(cmdline, func(t *testing.T) {
			source, _, model, where := linesMachine(t, vcpus, cmdline)
			if err := source.Pause(); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			var all sync.WaitGroup
			outs := []*vmmtest.SerialLog{{}, {}}
			byLine, lines := homedClone(t, source, Config{SerialOut: outs[0]})
			byPage, pages := demandClone(t, source, Config{SerialOut: outs[1]})
			lines.answer(ctx, &all)
			all.Go(func() { pages.answer(ctx) })
			for _, m := range []*Machine{byLine, byPage} {
				if err := m.Resume(); err != nil {
					t.Fatal(err)
				}
			}
			for round := 1; round <= 4; round++ {
				stored, _ := model.Round()
				want := fmt.Sprintf("lines round=%d stored=%d mismatches=0\n", round, stored.Count())
				for i, m := range []*Machine{byLine, byPage} {
					if err := m.Feed(t.Context(), []byte("g")); err != nil {
						t.Fatal(err)
					}
					waitFor(t, outs[i], 0, want)
				}
				if round == 2 {
					lines.push(rng)
					pages.push(rng)
				}
			}
			cancel()
			all.Wait()
			var got [2][]byte
			for i, m := range []*Machine{byLine, byPage} {
				if err := model.Check(m.Memory()); err != nil {
					t.Error(err)
				}
				got[i] = make([]byte, where.SizeBytes)
				if err := m.Memory().ReadAt(where.Base, got[i]); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(got[0], got[1]) {
				t.Error("the two guests differ")
			}
			if lines.brought.Load() == 0 {
				t.Error("no line was fetched")
			}
			for _, d := range []*memory.Demand{lines.demand, pages.demand} {
				if err := d.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestHomedPause: a machine whose vCPUs wait for lines can be paused at any time, no instruction is completed then though lines
// arrive, and it goes on where it was.
func TestHomedPause(t *testing.T) {
	for _, cpus := range []int{1, 2} {
		t.Run(fmt.Sprint(cpus), func(t *testing.T) {
			rng := seeded(t)
			source, _ := dirtyMachine(t, cpus, "pages=64 lines=4 rate=0", false)
			steps := check(t, source)
			m, p := homedClone(t, source, Config{})
			ctx, cancel := context.WithCancel(t.Context())
			var all sync.WaitGroup
			all.Go(func() { p.pager.answer(ctx) })
			for range 40 {
				if err := m.Resume(); err != nil {
					t.Fatal(err)
				}
				line, err := p.lines.NextLine(ctx) // a vCPU waits
				if err != nil {
					t.Fatal(err)
				}
				for range rng.IntN(3) {
					runtime.Gosched()
				}
				if err := m.Pause(); err != nil {
					t.Fatal(err)
				}
				if rng.IntN(8) == 0 {
					if _, err := m.Save(true); !errors.Is(err, memory.ErrMissing) {
						t.Fatalf("saved within an instruction: %v", err)
					}
				}
				p.bringLine(line)
				before := view(t, m.Memory(), p.absent)
				if rng.IntN(8) == 0 {
					p.bring(memory.GPA(line*coherence.LineSize) &^ (memory.PageSize - 1))
				}
				p.wantStill(m, before)
			}
			p.push(rng)
			cancel()
			all.Wait()
			p.wantComplete(m, steps+1000)
		})
	}
}

// TestHomedClose: a machine may be closed while its vCPUs wait for page tables, or for lines.
func TestHomedClose(t *testing.T) {
	source, _ := dirtyMachine(t, 2, "pages=64 rate=0", false)
	check(t, source)
	for _, tables := range []bool{false, true} {
		m, p := homedClone(t, source, Config{})
		if err := m.Resume(); err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		if tables {
			all.Go(func() { p.pager.answer(ctx) }) // and code
			if _, err := p.lines.NextLine(ctx); err != nil {
				t.Error(err)
			}
		} else if _, err := p.mem.Next(ctx); err != nil {
			t.Error(err)
		}
		m.Stop()
		cancel()
		all.Wait()
	}
}
