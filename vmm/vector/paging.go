package vector

import (
	"fmt"

	"github.com/fineline-vmm/fineline/memory"
)

// paging is what the translation of addresses in 64-bit mode depends on (Intel SDM
// vol. 3A, chapter 5).
type paging struct {
	cr0, cr3, cr4 uint64
	user          bool // CPL 3
	ac            bool // RFLAGS.AC
	// load reads 8 bytes of guest memory.
	load func(memory.GPA) (uint64, error)
}

const (
	entryPresent  = 1 << 0
	entryWritable = 1 << 1
	entryUser     = 1 << 2
	entryAccessed = 1 << 5
	entryDirty    = 1 << 6
	entryLarge    = 1 << 7
	entryAddress  = 0x000f_ffff_ffff_f000
	entryKeyShift = 59

	cr0WriteProtect = 1 << 16
	cr4LA57         = 1 << 12
	cr4SMAP         = 1 << 21
	cr4Keys         = 1<<22 | 1<<24 // PKE, PKS
)

// translate returns the guest-physical address of va. The error wraps ErrNotMapped; or
// ErrNotPermitted, and the address is good all the same.
func (p *paging) translate(va uint64, write bool) (memory.GPA, error) {
	levels := 4
	if p.cr4&cr4LA57 != 0 {
		levels = 5
	}
	table, rights := p.cr3&entryAddress, ^uint64(0)
	for level := levels; ; level-- {
		shift := 12 + 9*(level-1)
		entry, err := p.load(memory.GPA(table + va>>shift&0x1ff*8))
		if err != nil {
			return 0, fmt.Errorf("%w for %#x: page table: %w", ErrNotMapped, va, err)
		}
		if entry&entryPresent == 0 {
			return 0, fmt.Errorf("%w for %#x", ErrNotMapped, va)
		}
		rights &= entry
		if level == 1 || level <= 3 && entry&entryLarge != 0 {
			mask := uint64(1)<<shift - 1
			gpa := memory.GPA(entry&entryAddress&^mask | va&mask)
			return gpa, p.permit(va, rights, entry, write)
		}
		table = entry & entryAddress
	}
}

// permit refuses what the CPU would not do with the entries as they are: it would fault, or
// set an accessed or dirty flag. The flags are not set here: on software KVM the stores
// of this process to page tables go unseen, and the CPU does it well. A page with a protection key
// other than 0 is refused without a look at the keys' rights.
func (p *paging) permit(va, rights, leaf uint64, write bool) error {
	needs := uint64(entryAccessed)
	if p.user {
		needs |= entryUser
	}
	if write && (p.user || p.cr0&cr0WriteProtect != 0) {
		needs |= entryWritable
	}
	bad := rights&needs != needs ||
		write && leaf&entryDirty == 0 ||
		!p.user && rights&entryUser != 0 && p.cr4&cr4SMAP != 0 && !p.ac ||
		p.cr4&cr4Keys != 0 && leaf>>entryKeyShift&0xf != 0
	if bad {
		return fmt.Errorf("%w: %#x, entry %#x", ErrNotPermitted, va, leaf)
	}
	return nil
}
