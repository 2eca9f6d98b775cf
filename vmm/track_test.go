package vmm

import (
	"fmt"
	"math/bits"
	"runtime"
	"testing"

	"github.com/fineline-vmm/fineline/coherence/track"
	"github.com/fineline-vmm/fineline/images/dirtycheck"
	"github.com/fineline-vmm/fineline/memory"
)

// region is where a dirty guest writes.
func region(t *testing.T, m *Machine) track.Range {
	t.Helper()
	s, err := dirtycheck.ReadState(m.Memory())
	if err != nil {
		t.Fatal(err)
	}
	return track.Range{Base: s.Params.Base, SizeBytes: s.Params.Pages * memory.PageSize}
}

// tracked arms a context on ranges of the machine.
func tracked(t *testing.T, m *Machine, mode track.Mode, list ...track.Range) *track.Context {
	t.Helper()
	c, err := m.Lines().NewContext(track.ContextOptions{Mode: mode})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Register(list); err != nil {
		t.Fatal(err)
	}
	if err := c.Arm(); err != nil {
		t.Fatal(err)
	}
	return c
}

// awaitRounds returns when each vCPU has written each of its lines, in order, since the call.
func awaitRounds(t *testing.T, m *Machine) {
	t.Helper()
	var first *dirtycheck.State
	for {
		now, err := dirtycheck.ReadState(m.Memory())
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = now
		}
		done := true
		for i, v := range now.VCPUs {
			done = done && v.Done > first.VCPUs[i].Done+v.Lines
		}
		if done {
			return
		}
		runtime.Gosched()
	}
}

// With N lines written in each page, tracking by the page moves 64/N times the bytes: in
// every mode, and the guest's memory is what it ought to be.
func TestAmplification(t *testing.T) {
	const pages = 8
	for _, mode := range []track.Mode{track.Diff, track.Stores, track.Homed} {
		for n := 1; n <= track.LinesPerPage; n *= 2 {
			t.Run(fmt.Sprintf("%s %d lines", mode, n), func(t *testing.T) {
				m, _ := dirtyMachine(t, 1+n%2, fmt.Sprintf("pages=%d lines=%d pattern=seq rate=0", pages, n), false)
				c := tracked(t, m, mode, region(t, m))
				awaitRounds(t, m)
				check(t, m)
				dirtyPages, dirtyLines := 0, 0
				if _, err := c.Harvest(0, func(p track.Page) {
					dirtyPages++
					dirtyLines += bits.OnesCount64(p.Lines)
				}); err != nil {
					t.Fatal(err)
				}
				if dirtyPages != pages || dirtyLines != pages*n {
					t.Errorf("%d pages and %d lines, want %d and %d", dirtyPages, dirtyLines, pages, pages*n)
				}
				if amplification := float64(dirtyPages*memory.PageSize) / float64(dirtyLines*track.LineBytes); amplification != 64/float64(n) {
					t.Errorf("amplification %v, want %v", amplification, 64/float64(n))
				}
			})
		}
	}
}
