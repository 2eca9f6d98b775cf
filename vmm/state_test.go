package vmm

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/fineline-vmm/fineline/images/dirtycheck"
	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/vmm/vmmtest"
)

// dirtyMachine boots builtin:dirty and waits until every vCPU writes.
func dirtyMachine(t testing.TB, cpus int, cmdline string, ring bool) (*Machine, *vmmtest.SerialLog) {
	t.Helper()
	out := &vmmtest.SerialLog{}
	m := newMachine(t, Config{
		CPUs: cpus, DirtyRing: ring, SerialOut: out,
		Boot: BootFiles{Kernel: "builtin:dirty", Cmdline: fmt.Sprintf("vcpus=%d progress=0 %s", cpus, cmdline)},
	})
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, out, 0, "dirty ready")
	return m, out
}

// check stops the machine, compares all of its memory with what it must hold, and
// returns the number of steps.
func check(t *testing.T, m *Machine) uint64 {
	t.Helper()
	if err := m.Pause(); err != nil {
		t.Fatal(err)
	}
	r, err := dirtycheck.Check(m.Memory(), 3)
	if err != nil {
		t.Fatal(err)
	}
	if r.Mismatches != 0 {
		t.Fatalf("%d mismatches after %d steps: %v", r.Mismatches, r.Steps(), r.Details)
	}
	return r.Steps()
}

func TestPauseStorm(t *testing.T) {
	for _, cpus := range []int{1, 2, 4} {
		t.Run(fmt.Sprint(cpus), func(t *testing.T) {
			m, _ := dirtyMachine(t, cpus, "pages=64 rate=0", false)
			last := check(t, m)
			for range repeats(200) {
				if err := m.Resume(); err != nil {
					t.Fatal(err)
				}
				if err := m.Pause(); err != nil {
					t.Fatal(err)
				}
			}
			if now := check(t, m); now < last {
				t.Errorf("steps went back from %d to %d", last, now)
			}
		})
	}
}

// TestSaveRestore moves a running guest from machine to machine within one process.
func TestSaveRestore(t *testing.T) {
	for _, cpus := range []int{1, 4} {
		t.Run(fmt.Sprint(cpus), func(t *testing.T) {
			m, _ := dirtyMachine(t, cpus, "pages=256 lines=8 rate=0", false)
			var last uint64
			for hop := range 5 {
				steps := check(t, m)
				if hop > 1 && steps <= last {
					t.Fatalf("hop %d: %d steps after %d: the guest stands still", hop, steps, last)
				}
				last = steps
				m = cloneMachine(t, m)
				if err := m.Resume(); err != nil {
					t.Fatal(err)
				}
				awaitSteps(t, m, last)
			}
			check(t, m)
		})
	}
}

// awaitSteps returns when the guest has done more than steps.
func awaitSteps(t *testing.T, m *Machine, steps uint64) {
	t.Helper()
	for {
		now, err := dirtycheck.ReadState(m.Memory())
		if err != nil {
			t.Fatal(err)
		}
		if now.Steps() > steps {
			return
		}
	}
}

// cloneMachine builds a second machine out of the description, state and memory of
// a paused one.
func cloneMachine(t *testing.T, m *Machine) *Machine {
	t.Helper()
	return cloneMachineWith(t, m, Config{})
}

func cloneMachineWith(t *testing.T, m *Machine, cfg Config) *Machine {
	t.Helper()
	return cloneMachineThen(t, m, cfg, func(to *memory.Guest) { copyMemory(t, to, m.Memory()) })
}

// cloneMachineThen has fill give the clone its memory.
func cloneMachineThen(t *testing.T, m *Machine, cfg Config, fill func(to *memory.Guest)) *Machine {
	t.Helper()
	description, err := m.Description()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := m.Save(true)
	if err != nil {
		t.Fatal(err)
	}
	clone, err := NewFromDescription(description, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := clone.Close(); err != nil {
			t.Error(err)
		}
	})
	fill(clone.Memory())
	if resume, err := clone.Restore(sealed); err != nil || !resume {
		t.Fatal(resume, err)
	}
	return clone
}

func copyMemory(t testing.TB, to, from *memory.Guest) {
	t.Helper()
	pages, err := from.DataPages()
	if err != nil {
		t.Fatal(err)
	}
	page := make([]byte, memory.PageSize)
	pages.Range(func(gpa memory.GPA) bool {
		if err = from.ReadAt(gpa, page); err == nil {
			err = to.WriteAt(gpa, page)
		}
		return err == nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestDirtySources copies what each source reports and nothing else, while the guest
// writes; the copy must end up right. One page lost would be found by its lines.
func TestDirtySources(t *testing.T) {
	for _, ring := range []bool{false, true} {
		t.Run(map[bool]string{false: "log", true: "ring"}[ring], func(t *testing.T) {
			m, _ := dirtyMachine(t, 2, "pages=512 lines=2 rate=0", ring)
			clone, err := memory.New(m.Memory().Regions(), memory.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = clone.Close() })
			tracker := m.Memory().Track(m.DirtySource())
			if err := tracker.Start(); err != nil {
				t.Fatal(err)
			}
			copyMemory(t, clone, m.Memory())
			for round := range 20 {
				if round == 19 {
					if err := m.Pause(); err != nil {
						t.Fatal(err)
					}
				}
				dirty := m.Memory().NewPageSet()
				if err := tracker.Collect(dirty); err != nil {
					t.Fatal(err)
				}
				copyPages(t, clone, m.Memory(), dirty)
			}
			if err := tracker.Stop(); err != nil {
				t.Fatal(err)
			}
			r, err := dirtycheck.Check(clone, 3)
			if err != nil || r.Mismatches != 0 {
				t.Errorf("%d mismatches (%v): %v", r.Mismatches, err, r.Details)
			}
		})
	}
}

func copyPages(t *testing.T, to, from *memory.Guest, pages *memory.PageSet) {
	t.Helper()
	page := make([]byte, memory.PageSize)
	pages.Range(func(gpa memory.GPA) bool {
		if err := errors.Join(from.ReadAt(gpa, page), to.WriteAt(gpa, page)); err != nil {
			t.Error(err)
		}
		return true
	})
}

func TestRestoreRefusesDamage(t *testing.T) {
	m, _ := dirtyMachine(t, 1, "pages=16", false)
	check(t, m)
	sealed, err := m.Save(true)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		bad := append([]byte(nil), sealed...)
		bad[random.IntN(len(bad))] ^= 1 << random.IntN(8)
		if _, err := m.Restore(bad); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
			t.Fatalf("a damaged state was accepted: %v", err)
		}
	}
	if _, err := m.Restore(sealed); err != nil {
		t.Errorf("the good state was refused: %v", err)
	}
}
