/*
 * From the PVH entry (and from the trampoline of the other vCPUs) down to CPL 3.
 *
 * PVH (Xen's docs/misc/pvh.pandoc) enters in 32-bit protected mode, paging off, flat segments,
 * EBX = physical address of the start info. What is here is all that runs at CPL 0 in a guest that does
 * not fault: see tables.S for why it is so little.
 */
#include "layout.h"

	.section .note.Xen, "a", @note
	.balign	4
	.long	4, 8, 18		/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz	"Xen"
	.quad	pvh_entry		/* 8 bytes: in an ELF64 QEMU reads that many */

	.section .text.entry, "ax"
	.code32
	.globl	pvh_entry, cpu_entry
pvh_entry:
	movl	%ebx, %edi
	xorl	%esi, %esi

/* EDI = start info or 0, ESI = index of this vCPU. */
cpu_entry:
	lgdtl	gdt_ptr
	movl	$0x20, %eax		/* PAE */
	movl	%eax, %cr4
	movl	$pml4, %eax
	movl	%eax, %cr3
	movl	$0xc0000080, %ecx	/* EFER: long mode, and SCE for hypervisors that look at it */
	movl	$0x101, %eax
	xorl	%edx, %edx
	wrmsr
	movl	$0x80000031, %eax	/* paging, numeric error, protection */
	movl	%eax, %cr0
	ljmpl	$SEL_CODE64, $1f
	.code64
1:	movl	%edi, %edi		/* the upper halves are undefined after the switch */
	movl	%esi, %esi
	movl	%esi, %eax
	shll	$4, %eax
	addl	$SEL_TSS, %eax
	ltr	%ax
	lidt	idt_ptr
	leal	1(%rsi), %eax
	imull	$STACK_BYTES, %eax
	leaq	stacks(%rax), %rax
	movq	%rax, %rsp
	call	cpl0_init
	movq	%rsp, %rax
	pushq	$SEL_USER_DATA
	pushq	%rax
	pushq	$0x3002			/* IOPL 3, interrupts off */
	pushq	$SEL_USER_CODE
	pushq	$user_entry
	iretq

/* A guest that needs more of CPL 0 has its own, which keeps EDI and ESI. */
	.weak	cpl0_init
cpl0_init:
	ret

user_entry:
	xorl	%ebp, %ebp
	testl	%esi, %esi
	jnz	2f
	call	main
	ud2
2:	movl	%esi, %edi
	call	ap_main
	ud2

	.section .note.GNU-stack, "", @progbits
