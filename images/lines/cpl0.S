/*
 * Switches on SSE, and AVX and AVX-512 where the CPUID has them: CR4 and XCR0 are out of reach at CPL 3.
 * Intel SDM volume 1, 13.3 and 14.2. EDI and ESI are kept.
 */
	.text
	.globl	cpl0_init
cpl0_init:
	movq	%cr4, %r8
	orl	$0x600, %r8d		/* OSFXSR, OSXMMEXCPT */
	movq	%r8, %cr4
	movl	$1, %eax
	xorl	%ecx, %ecx
	cpuid
	btl	$26, %ecx		/* XSAVE */
	jnc	1f
	orl	$0x40000, %r8d		/* OSXSAVE */
	movq	%r8, %cr4
	movl	$0xd, %eax
	xorl	%ecx, %ecx
	cpuid				/* EAX: what XCR0 may have */
	andl	$0xe7, %eax		/* x87, SSE, AVX, and the three of AVX-512 */
	xorl	%edx, %edx
	xorl	%ecx, %ecx
	xsetbv
	movl	%eax, lines_xcr0
1:	ret

	.data
	.balign	4
	.globl	lines_xcr0
lines_xcr0:
	.long	0

	.section .note.GNU-stack, "", @progbits
