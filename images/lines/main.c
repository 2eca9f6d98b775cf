/* lines: a random program of loads and stores, of which it is known what it does. See images/doc.go, abi.h. */
#include "lines.h"

struct lines_header header __attribute__((section(".abi"), aligned(PAGE_BYTES)));
struct lines_vcpu vcpus[MAX_VCPUS] __attribute__((aligned(PAGE_BYTES)));

static volatile bool started;

#define TSC_KHZ 2000000    /* only for the pauses of waking vCPUs: near enough */
#define PAUSES_A_POLL 1000 /* a look at the serial port is an exit */

void put_field(const char *name, u64 v)
{
	put_text(name);
	put_dec(v);
}

void put_address(const char *name, u64 v)
{
	put_text(name);
	put_hex(v);
}

/* Kinds the processor does not have are left out, and said; nobody then takes a test of less for the whole. */
static void choose_kinds(u32 wanted)
{
	u32 missing = wanted & ~kinds_possible();

	header.kinds = wanted & ~missing;
	if (missing) {
		put_text("lines without kinds=");
		put_kinds(missing);
		put_text(": the processor does not have them, or they are switched off\n");
	}
	if (!header.kinds)
		die("kinds: none is left");
}

/* The region begins as zeros, which firmware does not promise. */
static void clear_region(void)
{
	u64 *words = (u64 *)header.base;

	for (u64 i = 0; i < header.pages * PAGE_BYTES / 8; i++)
		if (words[i])
			words[i] = 0;
}

static void prepare(const struct start_info *info, const struct options *o)
{
	header = (struct lines_header){
		.version = LINES_VERSION, .vcpus = (u32)o->vcpus, .seed = o->seed, .pages = o->pages,
		.steps = (u32)o->steps, .vcpus_at = (u64)vcpus,
	};
	choose_kinds(o->kinds);
	map_ram(info);
	access_init();
	counters_init();
	rounds_init();
	if (o->track != TRACK_NONE)
		track_alloc();
	header.base = region_choose(info, o->base, header.pages); /* the last to allocate, and to read info */
	clear_region();
}

static void report_ready(void)
{
	put_field("lines ready vcpus=", header.vcpus);
	put_field(" pages=", header.pages);
	put_field(" steps=", header.steps);
	put_text(" kinds=");
	put_kinds(header.kinds);
	put_field(" seed=", header.seed);
	put_address(" base=", header.base);
	put_text("\n");
	put_flush();
}

static void await_go(void)
{
	for (;;) {
		int c = serial_poll();

		if (c == 'g')
			return;
		if (c == 'q')
			power_off();
		for (u32 i = 0; c < 0 && i < PAUSES_A_POLL; i++)
			relax();
	}
}

static void report_round(void)
{
	u64 lines = 0;

	for (u64 page = 0; page < header.pages; page++)
		lines += bits(stored_lines(page));
	put_field("lines round=", header.rounds);
	put_field(" stored=", lines);
	put_field(" mismatches=", counters_wrong());
	put_text("\n");
	put_flush();
}

void main(const struct start_info *info)
{
	struct options o;

	serial_init();
	faults_init();
	o = options_parse(info->cmdline_at ? (const char *)info->cmdline_at : "");
	prepare(info, &o);
	if (smp_start(header.vcpus, TSC_KHZ) < header.vcpus)
		die("fewer vCPUs came up than vcpus= asks for");
	if (o.misuse)
		misuse();
	if (o.track != TRACK_NONE)
		track_start((u32)o.track);
	barrier();
	header.magic = LINES_MAGIC;
	report_ready();
	barrier();
	started = true;
	while (!o.rounds || header.rounds < o.rounds) {
		if (!o.rounds)
			await_go();
		rounds_next();
		report_round();
		if (o.track != TRACK_NONE)
			track_check();
	}
	power_off();
}

void ap_main(u32 vcpu)
{
	smp_here();
	while (!started)
		relax();
	rounds_follow(vcpu);
}
