/*
 * Waking the other vCPUs: INIT, SIPI, SIPI to all but self (Intel MP specification, B.4), by stores to the
 * local APIC from CPL 3. To all, because then nobody has to know the APIC ids; each vCPU that comes takes the
 * next index in trampoline.S, and those beyond the wanted number halt there.
 */
#include "guest.h"

extern const char trampoline[], trampoline_end[];

enum { ICR_LOW = 0x300, ICR_INIT_OTHERS = 0xc4500, ICR_SIPI_OTHERS = 0xc4600 };

static u32 running = 1;

void smp_here(void) { __atomic_fetch_add(&running, 1, __ATOMIC_SEQ_CST); }

static void send(u32 command) { *(volatile u32 *)(LAPIC + ICR_LOW) = command; }

static void wait(u64 ticks)
{
	u64 from = rdtsc();

	while (rdtsc() - from < ticks)
		relax();
}

u32 smp_start(u32 vcpus, u64 tsc_khz)
{
	u64 from;

	if (vcpus == 1)
		return 1;
	for (const char *p = trampoline; p != trampoline_end; p++)
		((volatile char *)TRAMPOLINE)[p - trampoline] = *p;
	*(volatile u32 *)AP_NEXT = 1;
	*(volatile u32 *)AP_LIMIT = vcpus;
	send(ICR_INIT_OTHERS);
	wait(10 * tsc_khz);
	for (u32 i = 0; i < 2; i++) {
		send(ICR_SIPI_OTHERS | TRAMPOLINE / PAGE_BYTES);
		wait(tsc_khz / 5); /* 200 us */
	}
	from = rdtsc();
	while (__atomic_load_n(&running, __ATOMIC_SEQ_CST) < vcpus && rdtsc() - from < 1000 * tsc_khz)
		relax();
	return __atomic_load_n(&running, __ATOMIC_SEQ_CST);
}
