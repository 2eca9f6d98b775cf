/*
 * Page tables beyond the static ones, and pages to build them from.
 *
 * This runs at CPL 3, where it is fast: a guest's stores to its own page tables are seen also by a
 * hypervisor that shadows them. A directory is filled before it is linked, so that such a hypervisor
 * does not know it yet and its 512 stores stay native.
 */
#include "guest.h"

#define GIB (1ULL << 30)
#define MIB2 (1ULL << 21)
#define MAPPABLE (512 * GIB) /* one PDPT */
#define PTE_ADDR 0x000ffffffffff000ULL

extern u64 pdpt[512];
extern char image_end[];

static u64 heap_next, heap_limit;

static const struct memmap_entry *memmap(const struct start_info *info)
{
	return (const struct memmap_entry *)info->memmap_at;
}

static u32 memmap_entries(const struct start_info *info)
{
	return info->magic == START_INFO_MAGIC && info->version >= 1 ? info->memmap_entries : 0;
}

u64 ram_bytes(const struct start_info *info)
{
	u64 sum = 0;

	for (u32 i = 0; i < memmap_entries(info); i++)
		if (memmap(info)[i].type == MEMMAP_RAM)
			sum += memmap(info)[i].bytes;
	return sum;
}

bool ram_holds(const struct start_info *info, u64 addr, u64 bytes)
{
	for (u32 i = 0; i < memmap_entries(info); i++) {
		const struct memmap_entry *e = &memmap(info)[i];

		if (e->type == MEMMAP_RAM && addr >= e->addr && addr - e->addr <= e->bytes &&
		    bytes <= e->bytes - (addr - e->addr))
			return true;
	}
	return false;
}

static void map(u64 start, u64 end, u64 flags)
{
	for (u64 addr = start & ~(MIB2 - 1); addr < end && addr < MAPPABLE;) {
		u64 *slot = &pdpt[addr / GIB], stop = (addr / GIB + 1) * GIB;
		bool fresh = !*slot;
		u64 *pd = fresh ? alloc_pages(1) : (u64 *)(*slot & PTE_ADDR);

		for (u32 i = 0; fresh && i < 512; i++)
			pd[i] = 0;
		for (; addr < end && addr < stop; addr += MIB2)
			pd[addr / MIB2 % 512] = addr | flags;
		barrier();
		if (fresh)
			*slot = (u64)pd | PTE_TABLE;
	}
}

void map_ram(const struct start_info *info)
{
	heap_next = (u64)image_end;
	for (u32 i = 0; i < memmap_entries(info); i++) {
		const struct memmap_entry *e = &memmap(info)[i];

		if (e->type == MEMMAP_RAM && e->addr <= heap_next && heap_next - e->addr < e->bytes)
			heap_limit = e->addr + e->bytes;
	}
	for (u32 i = 0; i < memmap_entries(info); i++) {
		const struct memmap_entry *e = &memmap(info)[i];
		u64 start = e->addr > GIB ? e->addr : GIB; /* below, tables.S has all of it */

		if (e->type == MEMMAP_RAM)
			map(start, e->addr + e->bytes, PTE_RAM);
	}
}

void map_mmio(u64 addr) { map(addr, addr + 1, PTE_MMIO); }

void *alloc_pages(u64 pages)
{
	u64 at = heap_next;

	if (at >= heap_limit || pages > (heap_limit - at) / PAGE_BYTES)
		die("not enough memory below 4 GiB: give the guest more, or ask for fewer pages");
	heap_next = at + pages * PAGE_BYTES;
	return (void *)at;
}

u64 alloc_end(void) { return heap_next; }
