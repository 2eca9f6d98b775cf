package vmm

import (
	"errors"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/fineline-vmm/fineline/coherence/homed"
	"github.com/fineline-vmm/fineline/memory"
)

// homedRAM is missing memory of a machine that comes by the line (package coherence/homed): while a page is absent it has no
// KVM slot, so that the guest's accesses to it exit. What the processors use by themselves keeps its slot and comes by the page,
// before the guest goes on; code, and what nobody can emulate, gets its slot back when that is seen (Blind).
//
// Slots change by chunks, and are given back when a quarter of what is left can be: each change takes milliseconds, in which the
// guest stands still. A page that has come and has no slot yet is served by exits all the same.
type homedRAM struct {
	m     *Machine
	mem   *homed.Memory
	done  <-chan struct{} // nothing is absent
	quit  chan struct{}
	tasks sync.WaitGroup
	once  sync.Once // of begin

	mu    sync.Mutex      // held while slots change; before slots.mu
	exits *memory.PageSet // pages without a slot; nil: none yet
}

// slotChunkBytes is the unit in which pages lose their slots and get them back: KVM's slots are few.
const slotChunkBytes = 2 << 20

// homeRetryTime is after what a change of slots is tried again, which fails while the machine is paused and a vCPU waits.
const homeRetryTime = 50 * time.Millisecond

// HomeMissing has the missing memory of the machine come by the line, from the next Resume on. What brings it fills the
// Memory that is returned, not the Demand. The machine must not run; the Demand stays the caller's.
func (m *Machine) HomeMissing(d *memory.Demand) (*homed.Memory, error) {
	mem, err := homed.New(m.mem, d, m.cacheModel())
	if err != nil {
		return nil, err
	}
	m.homed.Store(&homedRAM{m: m, mem: mem, done: d.Done(), quit: make(chan struct{})})
	return mem, nil
}

// begin takes the slots away, once, in the background: the vCPUs wait for it, since page tables must come first.
func (h *homedRAM) begin() {
	h.once.Do(func() {
		for _, c := range h.m.cpus {
			c.hold()
		}
		h.tasks.Go(func() {
			err := h.takeSlots()
			for _, c := range h.m.cpus {
				c.unhold()
			}
			if err != nil {
				// The guest gets on without: its memory comes by the page.
				logrus.WithError(err).Warn("missing memory does not come by the line")
				return
			}
			h.giveSlotsBack()
		})
	})
}

func (h *homedRAM) takeSlots() error {
	reserved, err := h.m.slots.reserved(true)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	exits := chunksWith(h.m.mem, h.mem.Absent())
	exits.Subtract(reserved)
	if err := h.m.slots.setHomed(h.m.union(exits)); err != nil {
		return err
	}
	h.exits = exits
	return nil
}

// giveSlotsBack returns when all pages have their slots.
func (h *homedRAM) giveSlotsBack() {
	done := h.done
	var retry <-chan time.Time
	for {
		select {
		case <-h.mem.Completed():
		case <-done:
			done = nil
		case <-retry:
		case <-h.quit:
			return
		}
		retry = nil
		switch left, err := h.giveBack(); {
		case err != nil:
			retry = time.After(homeRetryTime)
		case left == 0:
			return
		}
	}
}

// giveBack gives back what is worth it, and returns how many pages have no slot then.
func (h *homedRAM) giveBack() (left uint64, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	next := chunksWith(h.m.mem, h.mem.Absent())
	next.Intersect(h.exits)
	if before, after := h.exits.Len(), next.Len(); after == before || after > before/4*3 {
		return before, nil
	}
	if err := h.m.slots.setHomed(h.m.union(next)); err != nil {
		return 0, err
	}
	h.exits = next
	return next.Len(), nil
}

// blind gives pages back that nobody can serve, or all; false: none of them exits.
func (h *homedRAM) blind(pages []memory.GPA, all bool) (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.exits == nil {
		return false, nil
	}
	next, gone := h.m.union(h.exits), h.m.mem.NewPageSet()
	for _, page := range pages {
		gone.Add(page)
	}
	if all {
		gone.Union(h.exits)
	}
	next.Subtract(gone)
	if next.Len() == h.exits.Len() {
		return false, nil
	}
	if err := h.m.slots.setHomed(h.m.union(next)); err != nil {
		return false, err
	}
	h.exits = next
	return true, nil
}

// close ends it. Preconditions: no vCPU runs any more, and the Demand has ended or been abandoned.
func (h *homedRAM) close() error {
	close(h.quit)
	h.tasks.Wait()
	return h.m.slots.setHomed(nil)
}

// chunksWith returns the RAM of all chunks that have one of the pages.
func chunksWith(mem *memory.Guest, pages *memory.PageSet) *memory.PageSet {
	all := mem.NewPageSet()
	for _, r := range mem.Regions() {
		for off := uint64(0); off < r.SizeBytes; off += slotChunkBytes {
			size := min(slotChunkBytes, r.SizeBytes-off)
			if hasAny(pages, r.Base+memory.GPA(off), size) {
				all.AddRange(r.Base+memory.GPA(off), size)
			}
		}
	}
	return all
}

func hasAny(pages *memory.PageSet, gpa memory.GPA, sizeBytes uint64) bool {
	for off := uint64(0); off < sizeBytes; off += memory.PageSize {
		if pages.Has(gpa + memory.GPA(off)) {
			return true
		}
	}
	return false
}

// machineRAM is a machine's RAM to its vCPUs' exits.
type machineRAM struct{ m *Machine }

var _ guestRAM = machineRAM{}

// Access implements guestRAM. When missing memory is lost for ever a load reads zeros: it is the guest's last instruction,
// since its code is inaccessible then, too.
func (r machineRAM) Access(cpu int, gpa memory.GPA, data []byte, write bool) bool {
	h := r.m.homed.Load()
	if h == nil {
		return r.m.lines.Access(cpu, gpa, data, write)
	}
	if !r.m.mem.Contains(gpa, uint64(len(data))) {
		return false
	}
	for len(data) > 0 {
		n := min(len(data), int(memory.PageSize-gpa%memory.PageSize))
		switch absent, err := h.mem.Access(cpu, gpa, data[:n], write); {
		case err != nil:
			logrus.WithError(err).Debug("missing memory is lost")
		case absent:
			r.m.lines.Note(cpu, gpa, uint64(n), write)
		default:
			r.m.lines.Access(cpu, gpa, data[:n], write)
		}
		gpa, data = gpa+memory.GPA(n), data[n:]
	}
	return true
}

// Blind implements guestRAM.
func (r machineRAM) Blind(pages []memory.GPA) (bool, error) {
	given, err := r.m.lines.Blind(pages)
	if h := r.m.homed.Load(); h != nil {
		more, err2 := h.blind(pages, false)
		given, err = given || more, errors.Join(err, err2)
	}
	return given, err
}

// BlindAll implements guestRAM.
func (r machineRAM) BlindAll() (bool, error) {
	given, err := r.m.lines.BlindAll()
	if h := r.m.homed.Load(); h != nil {
		more, err2 := h.blind(nil, true)
		given, err = given || more, errors.Join(err, err2)
	}
	return given, err
}
