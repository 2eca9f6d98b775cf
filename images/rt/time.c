/*
 * The TSC's frequency, against PIT channel 0. Reading the counter needs no port 0x61 (which VMMs with an
 * in-kernel PIT often lack), and mode 0 counts once: no timer keeps ticking in the guest's state afterwards.
 */
#include "guest.h"

enum { PIT_COUNTER = 0x40, PIT_COMMAND = 0x43, PIT_MODE0 = 0x30, PIT_LATCH = 0 };
#define PIT_HZ 1193182
#define PIT_10MS (PIT_HZ / 100)
#define PIT_TRIES 100000 /* some 10 us each where a port exits: long over by then */

static u32 pit_read(u64 *tsc)
{
	u32 low;

	outb(PIT_COMMAND, PIT_LATCH);
	*tsc = rdtsc();
	low = inb(PIT_COUNTER);
	return low | (u32)inb(PIT_COUNTER) << 8;
}

u64 tsc_khz_measure(void)
{
	u64 from, to;
	u32 first, ticks;

	outb(PIT_COMMAND, PIT_MODE0);
	outb(PIT_COUNTER, 0xff);
	outb(PIT_COUNTER, 0xff);
	first = pit_read(&from);
	for (u32 i = 0; i < PIT_TRIES; i++) {
		ticks = (first - pit_read(&to)) & 0xffff;
		if (ticks >= PIT_10MS)
			return (to - from) * PIT_HZ / ((u64)ticks * 1000);
	}
	return 0;
}
