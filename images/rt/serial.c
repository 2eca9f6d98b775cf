/*
 * COM1 as a 16550A, polled.
 *
 * A port exit costs 9 us on software KVM, so a line is gathered and leaves sixteen bytes at a time: with the
 * FIFO on, THRE says that all sixteen places are free, and one REP OUTSB is one exit to the VMM.
 */
#include "guest.h"

enum { RBR = COM1, THR = COM1, FCR = COM1 + 2, LSR = COM1 + 5 };
enum { LSR_DATA = 0x01, LSR_THRE = 0x20, LSR_TEMT = 0x40, LSR_NOBODY = 0xff };

#define FIFO_BYTES 16

static char line[256];
static size_t line_len;

void serial_init(void)
{
	/* Switching the FIFO on empties it (16550A data sheet, FCR bit 0): let what is inside leave first. */
	while (!(inb(LSR) & LSR_TEMT))
		relax();
	outb(FCR, 1);
}

int serial_poll(void)
{
	u8 status = inb(LSR);

	return (status & LSR_DATA) && status != LSR_NOBODY ? inb(RBR) : -1;
}

void put_flush(void)
{
	const char *s = line;

	while (line_len) {
		size_t n = line_len < FIFO_BYTES ? line_len : FIFO_BYTES;

		line_len -= n;
		while (!(inb(LSR) & LSR_THRE))
			relax();
		__asm__ volatile("rep outsb" : "+S"(s), "+c"(n) : "d"(THR) : "memory");
	}
}

void put_chars(const char *s, size_t n)
{
	while (n--) {
		if (line_len == sizeof(line))
			put_flush();
		line[line_len++] = *s++;
	}
}

void put_text(const char *s)
{
	while (*s)
		put_chars(s++, 1);
}

static void put_number(u64 v, u32 base)
{
	char digits[20];
	size_t n = sizeof(digits);

	do {
		digits[--n] = "0123456789abcdef"[v % base];
		v /= base;
	} while (v);
	put_chars(digits + n, sizeof(digits) - n);
}

void put_dec(u64 v) { put_number(v, 10); }

void put_hex(u64 v)
{
	put_text("0x");
	put_number(v, 16);
}
