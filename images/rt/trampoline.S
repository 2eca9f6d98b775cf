/* First code of a woken vCPU: real mode, copied to TRAMPOLINE by smp.c. DS is 0 after INIT, CS the page. */
#include "layout.h"

	.section .rodata.trampoline, "a"
	.globl	trampoline, trampoline_end
	.code16
trampoline:
	cli
	movl	$1, %esi
	lock xaddl %esi, AP_NEXT
	cmpl	AP_LIMIT, %esi
	jae	2f
	lgdtl	%cs:3f - trampoline
	movl	$0x31, %eax		/* protection; caches on, which INIT had turned off */
	movl	%eax, %cr0
	ljmpl	$SEL_CODE32, $ap_entry
2:	hlt				/* more vCPUs than the guest was told to use */
	jmp	2b
3:	.word	gdt_ptr_limit
	.long	gdt
trampoline_end:

	.section .text.ap, "ax"
	.code32
ap_entry:
	movl	$SEL_DATA, %eax
	movl	%eax, %ds
	movl	%eax, %ss
	xorl	%edi, %edi
	jmp	cpu_entry

	.section .note.GNU-stack, "", @progbits
