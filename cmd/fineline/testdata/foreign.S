/* A PVH kernel made without Fineline: 32-bit, at CPL 0 throughout. It sends 8 KiB in which every byte
 * value appears, then ends by isa-debug-exit with 3, that is with exit code 7. */
	.section .note.pvh, "a", @note
	.long 4, 4, 18		/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.long _start

	.text
	.globl _start
_start:	xorl	%ecx, %ecx
send:	movw	$0x3fd, %dx
wait:	inb	%dx, %al
	testb	$0x20, %al	/* room in the transmitter */
	jz	wait
	movb	%ch, %al	/* byte i is i + 5 * (i / 256) */
	movb	%al, %bl
	shlb	$2, %al
	addb	%bl, %al
	addb	%cl, %al
	movw	$0x3f8, %dx
	outb	%al, %dx
	incl	%ecx
	cmpl	$8192, %ecx
	jne	send
	movl	$3, %eax
	movw	$0xf4, %dx
	outl	%eax, %dx
halt:	hlt
	jmp	halt
