/* The memory that a guest works on: pages of RAM that hold nothing else, at an address it is told or chooses. */
#include "guest.h"

extern char image_start[];

u64 region_choose(const struct start_info *info, u64 base, u64 pages)
{
	u64 bytes = pages * PAGE_BYTES;

	if (!base)
		base = alloc_end();
	if (base % PAGE_BYTES || (base < alloc_end() && base + bytes > (u64)image_start))
		die("base: not on a page, or inside the image or its tables");
	if (!ram_holds(info, base, bytes))
		die("the pages do not fit into memory at base: fewer pages, more memory, or base=0x100000000");
	return base;
}
