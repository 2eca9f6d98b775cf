/*
 * What vCPU 0 does besides writing. It looks at the clock every 64th time and at the serial port every 10 ms,
 * since a port exit costs as much as hundreds of steps.
 */
#include "dirty.h"

static u64 poll_ticks, progress_ticks; /* progress_ticks: 0 = none */
static u64 polled_at, progress_at;

void console_init(const struct options *o)
{
	poll_ticks = o->tsc_khz * 10;
	progress_ticks = o->progress ? o->tsc_khz * 1000 : 0;
	progress_at = rdtsc();
}

static u64 steps_sum(void)
{
	u64 sum = 0;

	for (u32 v = 0; v < header.vcpus; v++)
		sum += ((volatile struct dirty_vcpu *)vcpus)[v].done;
	return sum;
}

/* Lines that the writers found wrong before they wrote them again. */
static u64 mismatches_sum(struct mismatch *first)
{
	u64 sum = 0;

	for (u32 v = 0; v < header.vcpus; v++) {
		u64 n = ((volatile struct dirty_vcpu *)vcpus)[v].mismatches;

		if (n && !sum)
			*first = *writer_first(v);
		sum += n;
	}
	return sum;
}

static void put_field(const char *name, u64 v)
{
	put_text(name);
	put_dec(v);
}

static void put_address(const char *name, u64 v)
{
	put_text(name);
	put_hex(v);
}

static void put_mismatch(const struct mismatch *m)
{
	put_address(" first line=", m->line);
	put_field(" vcpu=", m->vcpu);
	put_field(" step=", m->step);
	put_field(" offset=", m->offset);
	put_address(" expected=", m->expected);
	put_address(" found=", m->found);
}

static void report(const char *what, u64 mismatches, const struct mismatch *first)
{
	put_field(what, steps_sum());
	put_field(" mismatches=", mismatches);
	if (first && mismatches)
		put_mismatch(first);
	put_text("\n");
	put_flush();
}

static void check(void)
{
	struct mismatch first, earlier;
	u64 now, before;

	writers_stop();
	now = check_all(&first);
	before = mismatches_sum(&earlier);
	report("check steps=", now + before, before ? &earlier : &first);
	writers_go();
}

static void command(int c)
{
	struct mismatch first;

	if (c == 's')
		report("dirty steps=", mismatches_sum(&first), NULL);
	if (c != 'c' && c != 'q')
		return; /* line ends and noise */
	check();
	if (c == 'q')
		power_off();
}

static void report_ready(void)
{
	put_field("dirty ready vcpus=", header.vcpus);
	put_field(" pages=", header.pages);
	put_field(" lines=", header.lines);
	put_field(" bytes=", header.bytes);
	put_text(" pattern=");
	put_text(pattern_name(header.pattern));
	put_field(" rate=", header.rate);
	put_field(" seed=", header.seed);
	put_address(" base=", header.base);
	put_field(" tsc_khz=", header.tsc_khz);
	put_text("\n");
	put_flush();
}

/* Says once that everybody writes, and ends the guest once everybody has written all. */
static void follow(void)
{
	static bool ready;
	u64 least = ~0ULL;

	for (u32 v = 0; v < header.vcpus; v++) {
		u64 done = ((volatile struct dirty_vcpu *)vcpus)[v].done;

		least = done < least ? done : least;
	}
	if (!ready && least) {
		report_ready();
		ready = true;
	}
	if (header.steps && least == header.steps)
		command('q');
}

/* Unsigned differences: a clock that went back looks like one that went far, and is started anew. */
void console_serve(void)
{
	static u32 turn;
	struct mismatch first;
	u64 now;

	if (++turn % 64)
		return;
	now = rdtsc();
	if (now - polled_at < poll_ticks)
		return;
	polled_at = now;
	follow();
	for (int c; (c = serial_poll()) >= 0;)
		command(c);
	if (progress_ticks && now - progress_at >= progress_ticks) {
		progress_at = now;
		report("dirty steps=", mismatches_sum(&first), NULL);
	}
}
