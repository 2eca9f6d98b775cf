/* dirty: a memory writer whose every store can be checked. Options and ABI: images/doc.go, abi.h. */
#include "dirty.h"

struct dirty_header header __attribute__((section(".abi"), aligned(PAGE_BYTES)));
struct dirty_vcpu vcpus[MAX_VCPUS] __attribute__((aligned(PAGE_BYTES)));

static volatile bool started;

#define TSC_KHZ_UNKNOWN 2000000 /* no PIT: rates and intervals are then only roughly right */

static void make_tables(const struct options *o)
{
	for (u32 v = 0; v < header.vcpus; v++) {
		u64 n = vcpu_lines(header.pages * header.lines, header.vcpus, v), *table;

		vcpus[v].lines = n;
		if (!o->table)
			continue;
		table = alloc_pages((n * 8 + PAGE_BYTES - 1) / PAGE_BYTES);
		for (u64 i = 0; i < n; i++)
			table[i] = 0;
		vcpus[v].table_at = (u64)table;
	}
}

/* A line nobody wrote yet must hold zeros, which firmware does not promise. Only what is not zero is
 * written, so that this dirties nothing where memory was fresh. */
static void clear_lines(void)
{
	for (u32 v = 0; v < header.vcpus; v++)
		for (u64 line = 0; line < vcpus[v].lines; line++) {
			u64 *words = (u64 *)line_address(&header, v, line);

			for (u32 i = 0; i < LINE_BYTES / 8; i++)
				if (words[i])
					words[i] = 0;
		}
}

static void prepare(const struct start_info *info, struct options *o)
{
	header = (struct dirty_header){
		.version = DIRTY_VERSION, .vcpus = (u32)o->vcpus, .seed = o->seed, .pages = o->pages,
		.lines = (u32)o->lines, .bytes = (u32)o->bytes, .pattern = o->pattern, .table = (u32)o->table,
		.rate = o->rate, .steps = o->steps, .vcpus_at = (u64)vcpus,
	};
	map_ram(info);
	make_tables(o);
	check_init();
	header.base = region_choose(info, o->base, header.pages); /* the last to read info, which may lie anywhere */
	clear_lines();
	if (!o->tsc_khz)
		o->tsc_khz = tsc_khz_measure();
	if (!o->tsc_khz)
		o->tsc_khz = TSC_KHZ_UNKNOWN;
	header.tsc_khz = o->tsc_khz;
}

void main(const struct start_info *info)
{
	struct options o;

	serial_init();
	faults_init();
	o = options_parse(info->cmdline_at ? (const char *)info->cmdline_at : "");
	prepare(info, &o);
	writers_init(&o);
	if (smp_start(header.vcpus, header.tsc_khz) < header.vcpus)
		die("fewer vCPUs came up than vcpus= asks for");
	console_init(&o);
	barrier();
	header.magic = DIRTY_MAGIC;
	barrier();
	started = true;
	writer_run(0, console_serve);
}

void ap_main(u32 vcpu)
{
	smp_here();
	while (!started)
		relax();
	writer_run(vcpu, NULL);
}
