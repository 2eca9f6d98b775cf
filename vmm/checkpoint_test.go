package vmm

import (
	"errors"
	"fmt"
	"testing"

	"github.com/fineline-vmm/fineline/memory"
)

// TestCheckpoint saves a guest that runs, again and again, and each of these states is one that its checker accepts.
func TestCheckpoint(t *testing.T) {
	for _, cpus := range []int{1, 4} {
		t.Run(fmt.Sprint(cpus), func(t *testing.T) {
			m, _ := dirtyMachine(t, cpus, "pages=256 lines=8 rate=0", false)
			steps := check(t, m)
			if err := m.Resume(); err != nil {
				t.Fatal(err)
			}
			mem, err := memory.New(m.Memory().Regions(), memory.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = mem.Close() })
			for n := range uint64(5) {
				awaitSteps(t, m, steps+500*n)
				sealed, err := m.Checkpoint(func() error {
					copyMemory(t, mem, m.Memory())
					return nil
				})
				if err != nil || m.Status() != Running {
					t.Fatal(err, m.Status())
				}
				awaitSteps(t, m, steps+500*n+200)
				if err := m.Pause(); err != nil {
					t.Fatal(err)
				}
				checkpoint{sealed, mem}.rewind(t, m)
				check(t, m)
				if err := m.Resume(); err != nil {
					t.Fatal(err)
				}
			}
			wrong := errors.New("wrong")
			if _, err := m.Checkpoint(func() error { return wrong }); !errors.Is(err, wrong) || m.Status() != Running {
				t.Errorf("%v, %v", err, m.Status())
			}
			if err := m.Pause(); err != nil {
				t.Fatal(err)
			}
			if _, err := m.Checkpoint(func() error { return nil }); err != nil || m.Status() != Paused {
				t.Errorf("of a paused machine: %v, %v", err, m.Status())
			}
			m.Stop()
			if _, err := m.Checkpoint(func() error { return nil }); err == nil {
				t.Error("of a machine that has ended")
			}
		})
	}
}
