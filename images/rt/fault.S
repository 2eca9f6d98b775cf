/* One stub for each exception; those for which the processor pushes no error code push a zero. */
	.text
	.globl	fault_entries
	.balign	16
fault_entries:
	.set	vector, 0
	.rept	32
	.balign	16
	/* 8, 10-14, 17, 21, 29, 30 */
	.if	!((0x60227d00 >> vector) & 1)
	pushq	$0
	.endif
	pushq	$vector
	jmp	fault_common
	.set	vector, vector + 1
	.endr

fault_common:
	movq	%cr2, %rax
	pushq	%rax
	movq	%rsp, %rdi
	andq	$-16, %rsp
	cld
	call	fault

	.section .note.GNU-stack, "", @progbits
