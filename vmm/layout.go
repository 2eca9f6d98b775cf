package vmm

import (
	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/vmm/boot"
)

// The guest-physical address space. RAM fills it from 0 up to the hole below
// 4 GiB and goes on at 4 GiB, as on a PC.
const (
	mmioHoleStart memory.GPA = 0xc000_0000 // PCI MMIO window, ECAM, IOAPIC, LAPIC, KVM's own pages
	mmioHoleEnd   memory.GPA = 0x1_0000_0000

	legacyStart memory.GPA = 0x9_fc00 // EBDA, VGA and BIOS area: no usable RAM for the guest
	legacyEnd   memory.GPA = 0x10_0000
	acpiStart   memory.GPA = 0xe_0000 // in the area where a guest without EFI scans for the RSDP
	acpiBytes              = 0x1_0000

	pciWindowBase  = 0xc000_0000
	pciWindowBytes = 0x2000_0000
	ecamBase       = 0xe000_0000
	ecamBytes      = 0x10_0000 // bus 0 only
	ioapicBase     = 0xfec0_0000
	lapicBase      = 0xfee0_0000
)

// Interrupt lines (GSIs) of the devices on the board.
const (
	irqCOM1 = 4
	irqRTC  = 8
	irqSCI  = 9
)

// ramRegions splits sizeBytes of RAM around the hole below 4 GiB.
func ramRegions(sizeBytes uint64) []memory.Region {
	low := min(sizeBytes, uint64(mmioHoleStart))
	regions := []memory.Region{{Base: 0, SizeBytes: low}}
	if high := sizeBytes - low; high > 0 {
		regions = append(regions, memory.Region{Base: mmioHoleEnd, SizeBytes: high})
	}
	return regions
}

// e820Map tells the guest which of its physical addresses are RAM.
func e820Map(regions []memory.Region) []boot.E820Entry {
	var out []boot.E820Entry
	for _, r := range regions {
		if r.Base != 0 {
			out = append(out, boot.E820Entry{Base: r.Base, SizeBytes: r.SizeBytes, Type: boot.E820RAM})
			continue
		}
		out = append(out,
			boot.E820Entry{Base: 0, SizeBytes: uint64(legacyStart), Type: boot.E820RAM},
			boot.E820Entry{Base: legacyStart, SizeBytes: uint64(legacyEnd - legacyStart), Type: boot.E820Reserved},
			boot.E820Entry{Base: legacyEnd, SizeBytes: r.SizeBytes - uint64(legacyEnd), Type: boot.E820RAM})
	}
	// Linux uses ECAM only where the memory map or ACPI reserves it.
	return append(out, boot.E820Entry{Base: ecamBase, SizeBytes: ecamBytes, Type: boot.E820Reserved})
}
