/*
 * Everything the processor wants to find ready in memory: page tables, descriptors, TSS.
 *
 * All of it is filled in by the assembler and the linker, not by code. Software KVM emulates CPL 0 at about
 * one million instructions a second, so a table that costs nothing at run time is what makes the boot fast.
 */
#include "layout.h"

	.section .data.tables, "aw"
	.balign	4096
	.globl	pml4, pdpt
/* The user bit is set at every level: the guests work at CPL 3. Accessed and dirty are set so that
 * nobody has to write them later. */
pml4:	.quad	pdpt + PTE_TABLE
	.fill	511, 8, 0
pdpt:	.quad	pd_low + PTE_TABLE
	.quad	0, 0
	.quad	pd_apic + PTE_TABLE
	.fill	508, 8, 0
pd_low:					/* 0 to 1 GiB, in 2 MiB pages */
	.set	frame, 0
	.rept	512
	.quad	frame + PTE_RAM
	.set	frame, frame + 0x200000
	.endr
pd_apic:				/* of 3 to 4 GiB only the local APIC; paging.c adds RAM if there is any */
	.fill	(LAPIC >> 21) & 511, 8, 0
	.quad	LAPIC + PTE_MMIO
	.fill	511 - ((LAPIC >> 21) & 511), 8, 0

	/* The selectors are Linux's: a KVM that is tuned to one guest system is tuned to that one. */
	.balign	16
gdt:	.quad	0
	.quad	0x00cf9b000000ffff	/* SEL_CODE32, on the way to long mode */
	.quad	0x00af9b000000ffff	/* SEL_CODE64 */
	.quad	0x00cf93000000ffff	/* SEL_DATA */
	.quad	0
	.quad	0x00cff3000000ffff	/* SEL_USER_DATA */
	.quad	0x00affb000000ffff	/* SEL_USER_CODE */
	.quad	0
	/* One TSS descriptor a vCPU, since LTR refuses a busy one; all of them show the one TSS.
	 * guest.lds takes the address apart. */
	.rept	MAX_VCPUS
	.word	TSS_BYTES - 1, tss_addr_0
	.byte	tss_addr_16, 0x89, 0, tss_addr_24
	.quad	0
	.endr
gdt_end:

/* Where the fault handler's stack is, and which ports CPL 3 may use: all. IOPL 3 says the same, but KVM on
 * a processor without VMX and SVM drops it from RFLAGS and asks the bitmap (its last byte must be ones:
 * Intel SDM volume 1, 19.5.2). */
	.globl	tss
tss:	.long	0
	.quad	fault_stack_top
	.fill	90, 1, 0
	.word	104
	.fill	0x10000 / 8, 1, 0
	.byte	0xff
	.set	TSS_BYTES, . - tss

	.globl	gdt, gdt_ptr, gdt_ptr_limit, idt_ptr
	.set	gdt_ptr_limit, gdt_end - gdt - 1
gdt_ptr:
	.word	gdt_ptr_limit
	.quad	gdt
idt_ptr:
	.word	32 * 16 - 1
	.quad	idt

	.bss
	.balign	4096
	.globl	stacks
stacks:	.skip	MAX_VCPUS * STACK_BYTES
	.skip	STACK_BYTES
fault_stack_top:

	.section .note.GNU-stack, "", @progbits
