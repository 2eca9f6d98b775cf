// Package vector does for a vCPU the moves between vector registers and memory that KVM's own
// emulator does not know.
//
// # Why
//
// Some pages of guest RAM are read-only or absent for the guest (kvm.VM.SetAccess), so that the
// VMM sees its accesses. KVM answers an access to such a page by emulating the instruction,
// and its emulator knows neither VEX nor EVEX nor many SSE moves (movss, movsd, movd, movlps):
// KVM_RUN then ends with an emulation failure. These instructions are what compilers and
// memcpy are made of. Running the instruction natively and alone is no way out: that
// would open the page for the other vCPUs too, and software KVM can't single-step.
//
// # What
//
// Do takes the instruction's bytes from the exit, decodes them, moves the data through the
// caller's Access, changes the register in the vCPU's XSAVE image and advances RIP. Table rows
// (table.go) say all there is to say of a move; there is no code for a single instruction.
// Known are the moves of SSE, AVX and AVX-512 between a vector register and
// memory: whole vectors, scalars, halves, broadcasts and extracted lanes, with opmasks.
//
// Everything else is an *UnknownError: the caller gives the pages it lists back to the guest, and
// enters it again; the CPU does the rest. The list holds at least every page that the memory operand
// touches. It can hold more, since of an instruction that is not known the operand's size and the
// scale of an EVEX displacement are not known either. If KVM could not read the instruction,
// the list is the code's own pages.
//
// # Invariants
//
//   - All pages of an operand are translated before the first is accessed, so an *UnknownError means
//     that nothing was done.
//   - Masked elements are neither translated nor accessed: they can't fault.
//   - An instruction whose page tables do not permit it as they are is not done: a page that
//     is not mapped, a copy-on-write page behind the end of one that exits, accessed and dirty flags
//     that are not set. The CPU then faults or sets them when it runs the instruction with the listed
//     pages open. So no fault is ever injected here, and no page table is written, which
//     software KVM would not see. An empty list with ErrNotMapped means that another vCPU has just
//     unmapped the page: enter again.
//   - A component of the XSAVE image whose bit in XSTATE_BV is clear reads as zeros; a store
//     sets the bit, with zeros in the component's other registers.
//
// # Limits
//
// Alignment is not checked: the CPU raises the exception of an aligned move (movaps, movdqa,
// movnt) before it looks at the page, so none arrives here; at CPL 0 on software KVM, where KVM emulates all,
// a misaligned one is done instead of faulting. An access is not one unit for other vCPUs,
// not even one of 16 aligned bytes, of which AVX promises it. An interrupt shadow
// (the instruction after sti) stays for one more instruction. The trap of single-stepping is not
// raised: with RFLAGS.TF set nothing is done.
//
// # Rejected
//
// golang.org/x/arch/x86/x86asm does not know VEX. KVM_TRANSLATE does not say whether the guest may
// write, and one call costs as much as the registers with CR3. Injecting page faults: the CPU raises
// them better. Vector arithmetic with a memory operand: endless, and rare on shared pages; it goes the way of
// everything unknown.
package vector
