/* The guest as a user of the tracker: what it harvests must be what it knows that it wrote. */
#include "lines.h"

#include "fineline_track.h"

static struct fl_memory memory;
static struct fl_device device;
static struct fl_context context;
static struct fl_run runs[4];
static u32 mode;
static u64 *copy, *harvested; /* the region at the last harvest; a mask for each page */
static bool inexact;

#define BATCH 64

/* What the library wants of a system. Virtual addresses are physical ones here, and all of RAM is mapped. */
uint64_t fl_translate(const void *page) { return (u64)page; }

void *fl_map(uint64_t physical, uint64_t bytes)
{
	map_mmio(physical);
	map_mmio(physical + bytes - 1);
	return (void *)physical;
}

uint32_t fl_in32(uint16_t port) { return inl(port); }

void fl_out32(uint16_t port, uint32_t value) { outl(port, value); }

void fl_relax(void) { relax(); }

static void must(const char *what, int error)
{
	if (!error)
		return;
	put_text("track ");
	put_text(what);
	put_field(" status=", (u64)error);
	put_text(" ");
	if (error == FL_ERR_RINGS)
		put_field("ring=", fl_ring_error(&device));
	die(fl_error(error));
}

struct fl_device *track_device(void)
{
	static u64 registers;

	if (!registers)
		must("find", fl_find(0, FL_WINDOW, &registers));
	must("open", fl_open(&device, registers, &memory));
	return &device;
}

void track_alloc(void)
{
	copy = alloc_pages(header.pages);
	harvested = alloc_pages((header.pages * 8 + PAGE_BYTES - 1) / PAGE_BYTES);
}

/* Only a difference needs it; in a region of homed lines every load is an exit. */
static void remember(void)
{
	const u64 *words = (const u64 *)header.base;

	if (mode != FLFPGA_MODE_DIFF)
		return;
	for (u64 i = 0; i < header.pages * PAGE_BYTES / 8; i++)
		copy[i] = words[i];
}

void track_start(u32 with)
{
	struct fl_range region = {(void *)header.base, header.pages * PAGE_BYTES};

	mode = with;
	must("create", fl_create(&context, track_device(), mode, 0, runs, sizeof(runs) / sizeof(*runs)));
	must("register", fl_register(&context, &region, 1));
	must("start", fl_start(&context));
	remember();
}

static void harvest(void)
{
	struct fl_page pages[BATCH];
	u32 count;
	bool more;

	inexact = false;
	for (u64 i = 0; i < header.pages; i++)
		harvested[i] = 0;
	do {
		must("harvest", fl_harvest(&context, 0, pages, BATCH, &count, &more));
		for (u32 i = 0; i < count; i++) {
			u64 page = (pages[i].virtual - header.base) / PAGE_BYTES;

			if (page >= header.pages)
				die("harvested a page that is not registered");
			harvested[page] |= pages[i].lines;
			inexact |= pages[i].flags & FLFPGA_RECORD_INEXACT;
		}
	} while (more);
}

static u64 changed_lines(u64 page)
{
	const u64 *now = (const u64 *)(header.base + page * PAGE_BYTES), *then = copy + page * PAGE_BYTES / 8;
	u64 lines = 0;

	for (u32 i = 0; i < PAGE_BYTES / 8; i++)
		if (now[i] != then[i])
			lines |= 1ULL << i * 8 / LINE_BYTES;
	return lines;
}

void track_check(void)
{
	static const char *const names[] = {"diff", "stores", "homed"};
	u64 lines = 0, missing = 0, extra = 0;

	harvest();
	for (u64 page = 0; page < header.pages; page++) {
		u64 want = mode == FLFPGA_MODE_DIFF ? changed_lines(page) : stored_lines(page);

		lines += bits(want);
		missing += bits(want & ~harvested[page]);
		extra += bits(harvested[page] & ~want);
	}
	remember();
	put_text("track mode=");
	put_text(names[mode]);
	put_field(" round=", header.rounds);
	put_field(" lines=", lines);
	put_field(" missing=", missing);
	put_field(" extra=", extra);
	put_text(inexact ? " inexact\n" : "\n");
	put_flush();
}
