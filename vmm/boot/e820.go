package boot

import "github.com/fineline-vmm/fineline/memory"

// E820Type is the kind of a memory map entry; PVH, multiboot and Linux share the numbers.
type E820Type uint32

// The kinds of ACPI specification 6.5, table 15.3, which every protocol here knows.
const (
	E820RAM      E820Type = 1
	E820Reserved E820Type = 2
	E820ACPI     E820Type = 3 // tables; RAM after the kernel has read them
	E820NVS      E820Type = 4
)

// E820Entry is one range of the memory map that the guest is given.
type E820Entry struct {
	Base      memory.GPA
	SizeBytes uint64
	Type      E820Type
}

// MaxE820Entries is how many entries Linux's zero page holds, and the cap for the other protocols too.
const MaxE820Entries = 128

// span clips the entry to the address space.
func (e E820Entry) span(name string) span {
	start := uint64(e.Base)
	end := start + e.SizeBytes
	if end < start {
		end = ^uint64(0)
	}
	return span{start, end, name}
}
