package kvm

import (
	"slices"
	"testing"

	gokvm "github.com/bobuhiro11/gokvm/kvm"

	"github.com/fineline-vmm/fineline/memory"
)

// writeExits lets the vCPU write one word in each of pages and serves the stores that
// exit; it returns their pages.
func (m *testVM) writeExits(c *VCPU, pages []memory.GPA) (exits []memory.GPA) {
	m.Helper()
	for i, gpa := range append(slices.Clone(pages), 0) {
		if gpa != 0 {
			gpa += 8 * memory.GPA(len(pages))
		}
		must(m, m.mem.StoreUint64(tableAddr+8*memory.GPA(i), uint64(gpa)))
	}
	for {
		switch e := m.next(c); {
		case e.Reason == ExitMMIO && e.MMIO.Write:
			must(m, m.mem.WriteAt(memory.GPA(e.MMIO.Addr), e.MMIO.Data))
			exits = append(exits, memory.GPA(e.MMIO.Addr)&^(memory.PageSize-1))
		case e.Reason == ExitIO && e.IO.Port == donePort:
			return exits
		case e.Reason == ExitDirtyRingFull:
			must(m, c.HarvestRing())
		default:
			m.Fatalf("%v, want a store or the end", e)
		}
	}
}

func (m *testVM) set(pages ...memory.GPA) *memory.PageSet {
	s := m.mem.NewPageSet()
	for _, gpa := range pages {
		s.Add(gpa)
	}
	return s
}

// Stores to read-only and absent pages exit, others do not; what was dirty before the slots
// changed is reported after it.
func TestSetAccess(t *testing.T) {
	sources(t, func(t *testing.T, o VMOptions) {
		m := newStorer(t, o)
		c := m.cpus[0]
		src := m.vm.DirtySource(m.mem)
		must(t, src.Start())
		all := slices.Concat(pages(dataAddr, 70), pages(highRAM, 3))
		one, two := all[3], all[65]
		native := slices.DeleteFunc(slices.Clone(all), func(p memory.GPA) bool { return p == one || p == two })

		wantExits := func(what string, want ...memory.GPA) {
			t.Helper()
			if got := m.writeExits(c, all); !slices.Equal(got, want) {
				t.Errorf("%s: stores to %#x exit, want %#x", what, got, want)
			}
		}
		// A page of a slot that is new may be reported though the guest only read it.
		collect := func() []memory.GPA {
			return slices.DeleteFunc(m.collect(src), func(p memory.GPA) bool { return p < dataAddr })
		}
		wantExits("native")
		must(t, m.vm.SetAccess(m.set(one), m.set(two)))
		m.wantPages("dirty before the change", collect(), all)
		wantExits("one read-only, one absent", one, two)
		m.wantPages("tracked", collect(), native)
		must(t, m.vm.RemapMemory())
		wantExits("remapped", one, two)
		m.wantPages("remapped", collect(), native)
		must(t, m.vm.SetAccess(m.set(two), nil))
		wantExits("one native again, the other read-only", two)
		must(t, m.vm.SetAccess(nil, nil))
		wantExits("all native again")
		m.wantPages("all", collect(), all)
		if got, want := len(m.vm.used()), 2; got != want {
			t.Errorf("%d slots are left, want %d", got, want)
		}
		must(t, src.Stop())
	})
}

// More pieces than KVM has slots are refused, and the guest keeps what it had.
func TestSetAccessTooManySlots(t *testing.T) {
	m := newStorer(t, VMOptions{})
	var every []memory.GPA
	for i := memory.GPA(0); i < lowPages; i += 2 {
		every = append(every, i*memory.PageSize)
	}
	few := *m.sys
	few.found = slices.Clone(m.sys.found)
	for i := range few.found {
		if few.found[i].Number == int(gokvm.CapNRMemSlots) {
			few.found[i].Value = 64
		}
	}
	m.vm.sys = &few
	if err := m.vm.SetAccess(m.set(every...), nil); err == nil {
		t.Error("more slots than KVM has were accepted")
	}
	if got := m.writeExits(m.cpus[0], pages(dataAddr, 9)); len(got) != 0 {
		t.Errorf("stores to %#x exit after a refusal", got)
	}
}
