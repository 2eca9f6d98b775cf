/* The runtime of the tiny guests: what libc and a kernel would give. Everything here runs at CPL 3. */
#ifndef RT_GUEST_H
#define RT_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layout.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

#define PAGE_BYTES 4096

/* Ports work at CPL 3: see the TSS in tables.S. */
static inline void outb(u16 port, u8 v) { __asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port)); }
static inline void outw(u16 port, u16 v) { __asm__ volatile("outw %0, %1" : : "a"(v), "Nd"(port)); }
static inline void outl(u16 port, u32 v) { __asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port)); }

static inline u32 inl(u16 port)
{
	u32 v;

	__asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

static inline u8 inb(u16 port)
{
	u8 v;

	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}

static inline u64 rdtsc(void)
{
	u32 low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return (u64)high << 32 | low;
}

static inline void relax(void) { __asm__ volatile("pause" : : : "memory"); }

/* Orders stores for whoever looks at memory while the guest is paused, and for other vCPUs: x86 keeps the
 * order of stores, so only the compiler has to be told. */
static inline void barrier(void) { __asm__ volatile("" : : : "memory"); }

/* PVH start info and memory map (Xen, public/arch-x86/hvm/start_info.h, version 1). */
struct start_info {
	u32 magic, version, flags, modules;
	u64 modules_at, cmdline_at, rsdp_at, memmap_at;
	u32 memmap_entries, reserved;
};
struct memmap_entry {
	u64 addr, bytes;
	u32 type, reserved;
};
#define START_INFO_MAGIC 0x336ec578
#define MEMMAP_RAM 1

/* Supplied by each guest. vCPU 0 enters main; the others, once woken, ap_main. Neither returns. */
_Noreturn void main(const struct start_info *info);
_Noreturn void ap_main(u32 vcpu);
/* May be supplied, in assembly: what a vCPU has to do at CPL 0. It keeps EDI and ESI. */
void cpl0_init(void);

/* serial.c: a line is built by the put_ functions and leaves with put_flush, in few exits. */
void serial_init(void);
int serial_poll(void); /* next byte received, or -1 */
void put_text(const char *s);
void put_chars(const char *s, size_t n);
void put_dec(u64 v);
void put_hex(u64 v);
void put_flush(void);

/* power.c */
_Noreturn void power_off(void);
_Noreturn void debug_exit(u32 code); /* powers off where there is no isa-debug-exit device */
_Noreturn void die(const char *why); /* prints, then debug_exit(1) */
void faults_init(void);              /* from here on a fault prints one line instead of a triple fault */

/* cmdline.c */
struct arg {
	const char *key, *value; /* not terminated */
	size_t key_len, value_len;
};
bool arg_next(const char **cursor, struct arg *a);
bool arg_key(const struct arg *a, const char *key);
bool arg_value(const struct arg *a, const char *value);
bool arg_item(const char **list, size_t *left, struct arg *a); /* next key of a list, a,b,c */
bool arg_number(const struct arg *a, u64 *out); /* decimal, or hexadecimal with 0x */

/* paging.c */
u64 ram_bytes(const struct start_info *info);
bool ram_holds(const struct start_info *info, u64 addr, u64 bytes);
void map_ram(const struct start_info *info); /* identity map of all RAM; sets up alloc_pages */
void map_mmio(u64 addr);                     /* the 2 MiB around addr, uncached */
void *alloc_pages(u64 pages);                /* not zeroed; dies when RAM below 1 GiB runs out */
u64 alloc_end(void);                         /* first address nobody has allocated */

/* region.c: its address, base or, where that is 0, after all that was allocated. Dies where it does not fit. */
u64 region_choose(const struct start_info *info, u64 base, u64 pages);

/* time.c */
u64 tsc_khz_measure(void); /* against the PIT, 10 ms; 0 where there is none */

/* smp.c */
u32 smp_start(u32 vcpus, u64 tsc_khz); /* wakes the others; returns how many run in all within a second */
void smp_here(void);                   /* ap_main calls this first */

#endif
