package vmm

import (
	"fmt"
	"sync"

	"github.com/fineline-vmm/fineline/coherence"
	"github.com/fineline-vmm/fineline/coherence/track"
	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/vmm/kvm"
)

// The caches of homed memory: a processor's first level, 32 KiB.
const (
	cacheSets = 64
	cacheWays = 8
)

// Lines finds the lines that the guest writes. Its contexts may be made at any time.
func (m *Machine) Lines() *track.Engine { return m.lines }

func newLines(m *Machine) *track.Engine {
	return track.NewEngine(m.mem, m.dirty, m.slots, track.Options{
		Baseline:    m.cfg.LineBaseline,
		BudgetBytes: m.cfg.LineBudgetBytes,
		Caches:      m.cacheModel(),
	})
}

func (m *Machine) cacheModel() coherence.Config {
	return coherence.Config{Caches: m.cfg.CPUs, Sets: cacheSets, Ways: cacheWays}
}

// slots changes the guest's access to its RAM while the machine runs.
type slots struct {
	m *Machine

	mu    sync.Mutex
	now   access
	turns *turns // nil: all vCPUs run at once
}

// access is which accesses exit, for the two who want that.
type access struct {
	readOnly, absent *memory.PageSet // for the trackers; nil: none
	homed            *memory.PageSet // absent, too: memory that comes by the line
}

func (a *access) exits() bool {
	some := func(s *memory.PageSet) bool { return s != nil && s.Len() > 0 }
	return some(a.readOnly) || some(a.absent) || some(a.homed)
}

// SetAccess implements track.Slots. It needs no Machine.mu, so that a device may call it that is
// about to be held still.
func (s *slots) SetAccess(readOnly, absent *memory.PageSet) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set(access{readOnly, absent, s.now.homed})
}

// setHomed is SetAccess for memory that comes by the line. The set becomes the callee's.
func (s *slots) setHomed(pages *memory.PageSet) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set(access{s.now.readOnly, s.now.absent, pages})
}

// set: mu is held.
func (s *slots) set(next access) error {
	exits := next.exits()
	if exits && s.turns == nil && len(s.m.cpus) > 1 {
		var err error
		if s.turns, err = startTurns(s.m.cpus); err != nil { // before the first store exits
			return fmt.Errorf("have the vCPUs take turns: %w", err)
		}
	}
	readOnly, absent := s.m.union(next.readOnly), s.m.union(next.absent, next.homed)
	readOnly.Subtract(absent)
	if !exits {
		readOnly, absent = nil, nil // as when the machine was built
	}
	err := s.m.freeze(func() error { return s.m.vm.SetAccess(readOnly, absent) })
	if err == nil {
		s.now = next
	}
	if !s.now.exits() && s.turns != nil {
		s.turns.end()
		s.turns = nil
	}
	if err != nil {
		return fmt.Errorf("change the guest's access to its memory: %w", err)
	}
	return nil
}

func (m *Machine) union(sets ...*memory.PageSet) *memory.PageSet {
	all := m.mem.NewPageSet()
	for _, s := range sets {
		if s != nil {
			all.Union(s)
		}
	}
	return all
}

// Reserved implements track.Slots.
func (s *slots) Reserved() (*memory.PageSet, error) { return s.reserved(false) }

// reserved may wait for page tables that are missing: then nobody may hold what their arrival needs.
func (s *slots) reserved(wait bool) (*memory.PageSet, error) {
	registers := make([]kvm.Sregs, len(s.m.cpus))
	err := s.m.freeze(func() error {
		for i, c := range s.m.cpus {
			if err := c.do(func(v *kvm.VCPU) error {
				r, err := v.Sregs()
				if err == nil {
					registers[i] = *r
				}
				return err
			}); err != nil {
				return fmt.Errorf("vCPU %d: %w", c.id, err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return reservedPages(s.m.mem, registers, wait), nil
}

// dirtySource is KVM's log of a machine. To start and stop it changes the slots, for which KVM waits until every vCPU has left the
// guest's memory alone for a moment: one that waits for a missing page does not, and whoever asks would be stuck with the locks that
// it holds. So where memory may be missing the vCPUs are parked first, which can fail: memory.ErrMissing.
type dirtySource struct {
	memory.DirtySource
	m *Machine
}

func (s dirtySource) Start() error { return s.change(s.DirtySource.Start) }
func (s dirtySource) Stop() error  { return s.change(s.DirtySource.Stop) }

func (s dirtySource) change(f func() error) error {
	if !s.m.mem.HasDemand() {
		return f()
	}
	return s.m.freeze(f)
}

// freeze calls f while no vCPU is in the guest, whatever the status of the machine is. For a vCPU that waits for
// missing memory it waits, too, but in a paused machine, where that does not come, it fails: memory.ErrMissing.
func (m *Machine) freeze(f func() error) error {
	for _, c := range m.cpus {
		c.hold()
		defer c.unhold()
	}
	if err := m.allParked(); err != nil {
		return err
	}
	return f()
}
