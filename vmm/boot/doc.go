// Package boot puts a kernel into guest memory and says in which state the first vCPU enters it.
//
// The format is found in the file's content, never in its name:
//
//   - an ELF (32 or 64 bit) with a PVH note: the tiny guests, Linux's uncompressed vmlinux, unikernels;
//   - a Linux bzImage, entered at its 64-bit entry;
//   - a multiboot version 1 kernel, as ELF32 or by the address fields of its header (kvm-unit-tests,
//     teaching kernels).
//
// An ELF that has both a PVH note and a multiboot header boots by PVH, which carries more (64-bit memory
// map, ACPI). In multiboot the address fields win over the ELF headers, as the specification orders.
//
// # Why so
//
// Every number in a file is untrusted. It is widened to 64 bits, checked against the file's size before it
// is read and against guest memory before it is written; the one buffer that grows with input (program
// headers, notes) has a fixed cap, and contents stream through a buffer of fixed size. So the memory a load
// needs does not depend on what the file says.
//
// Where things go is decided by one ledger (room). A kernel gets the RAM that it is linked to, though the
// memory map reserves it, as in QEMU; what the loader may choose, the initrd and its own pages (layout.go),
// goes into usable RAM around it. Each is claimed before it is written, so an overlap is an error that
// names both sides instead of a kernel that dies silently.
//
// # Rejected
//
//   - The 16-bit and 32-bit entries of bzImage: the 16-bit one needs a BIOS, and the 32-bit one adds nothing
//     since every x86-64 kernel from 3.8 on has the 64-bit entry.
//   - debug/elf: it reads section headers and names, of which a stripped kernel has none and a hostile one
//     has too many; a loader needs the program headers only.
//   - Multiboot version 2, framebuffers and VBE: no device of this machine has a display. A header that asks
//     for a video mode boots all the same, as in QEMU; its info structure has those flags clear.
//   - Writing zeros where the file has none (bss): see the invariants.
//
// # Invariants
//
//   - Guest memory reads zero when Load starts (fresh, or after memory.Guest.Reset). What a segment needs
//     zeroed is therefore not written, and its pages stay unallocated and cost a migration nothing.
//   - After an error guest memory holds part of a kernel and must not run; Reset makes it fit for another Load.
//   - Load keeps no reference to its arguments.
package boot
