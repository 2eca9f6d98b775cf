// Package acpi writes the ACPI tables of the machine: RSDP, RSDT, XSDT, FADT, FACS, DSDT, MADT and MCFG.
//
// # Why so
//
// The tables describe a board that hardly varies, so they are computed from a small Config, without a
// compiler in the build and without templates that are patched. The DSDT's byte code comes from an emitter
// of the few opcodes it needs (aml.go); each of its functions returns the finished bytes of a term, so that
// nesting in Go is nesting in AML and lengths are never fixed up. Tests give every table to the reference
// compiler, take it apart and assemble it again.
//
// Ports and values of the power management block are the constants of package power: description and device
// cannot disagree.
//
// There is an RSDT beside the XSDT, since small kernels read only that, and no table above 4 GiB.
//
// The machine is in ACPI mode from the start (no SMI command port) and is not hardware reduced: PM1a events,
// PM1a control and PM timer exist, the power button is the fixed one, SCI is a level-triggered legacy line.
//
// PCI's INTx lines are wired to the IOAPIC's inputs 16 to 23 (INTxGSI), as a static _PRT. That holds for
// guests which use the IOAPIC; a guest that insists on the two old interrupt controllers has to use MSI.
//
// # Rejected
//
//   - Hardware-reduced ACPI: it saves a few ports but takes the PM timer and the fixed power button away,
//     and guests test it less.
//   - Processor objects in the DSDT: only hotplug and power states of CPUs need them, and there are none.
//   - _OSC, link devices and _PIC: nothing here is negotiated or routed by the guest.
//   - A keyboard controller entry: the one at port 0x64 has no keyboard; without an entry Linux does not probe for one.
//   - x2APIC entries for more than 255 CPUs: the interrupt identifiers of the IOAPIC end there too.
//
// # Invariants
//
//   - The RSDP is the first byte of the area, 16-byte aligned, so that a guest which scans the BIOS area finds it.
//   - Every table's bytes sum to zero; FACS, which has no checksum, is 64-byte aligned.
//   - Same Config and place, same bytes: a migrated or reset guest sees the tables it has mapped.
package acpi
