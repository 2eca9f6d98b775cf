package kvm

import "github.com/fineline-vmm/fineline/memory"

const (
	// Linux, Documentation/virt/kvm/x86/msr.rst: bit 0 turns kvmclock on, the rest is the address of its page.
	msrKVMSystemTime    = 0x12
	msrKVMSystemTimeNew = 0x4b56_4d01
	systemTimeEnabled   = 1
)

// TouchedPages returns the pages of guest memory that KVM may look for while it restores the state, which need not
// be RAM: that of kvmclock, which KVM translates at once when its MSR is set, and the four page directory
// pointers of 32-bit PAE paging, which a write to CR3 loads (Intel SDM vol. 3, 4.4.1). Where one is missing
// (memory.Demand) the restore waits in the kernel until it comes.
func (s *VCPUState) TouchedPages() []memory.GPA {
	const paging, pae, lma = 1 << 31, 1 << 5, 1 << 10
	var pages []memory.GPA
	for _, m := range s.MSRs {
		if (m.Index == msrKVMSystemTime || m.Index == msrKVMSystemTimeNew) && m.Value&systemTimeEnabled != 0 {
			pages = append(pages, memory.GPA(m.Value&^(memory.PageSize-1)))
		}
	}
	if s.Sregs.CR0&paging != 0 && s.Sregs.CR4&pae != 0 && s.Sregs.EFER&lma == 0 {
		pages = append(pages, memory.GPA(s.Sregs.CR3&(1<<32-1)&^(memory.PageSize-1)))
	}
	return pages
}
