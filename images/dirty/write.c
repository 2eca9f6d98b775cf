/* The writers: pacing, one step, and stopping between two steps. */
#include "dirty.h"

static u64 period; /* TSC ticks from step to step, 0 = as fast as it can */
static u64 slack;  /* a writer that is later than this forgets the steps it missed */
static bool verify;
static struct mismatch first_found[MAX_VCPUS];

/* Odd = stop. A parked vCPU repeats the number it saw, so that an answer to an earlier stop is never taken
 * for one to this. A line each: the writers read it at every step. */
static struct {
	volatile u64 epoch;
} __attribute__((aligned(LINE_BYTES))) order;
static struct {
	volatile u64 epoch;
} __attribute__((aligned(LINE_BYTES))) parked[MAX_VCPUS];

struct mismatch *writer_first(u32 vcpu) { return &first_found[vcpu]; }

void writers_init(const struct options *o)
{
	slack = o->tsc_khz * 10; /* 10 ms */
	period = o->rate ? o->tsc_khz * 1000 / o->rate : 0;
	verify = o->verify;
}

void writers_stop(void)
{
	order.epoch++;
	for (u32 v = 1; v < header.vcpus; v++)
		while (parked[v].epoch != order.epoch)
			relax();
}

void writers_go(void) { order.epoch++; }

static void park_if_told(u32 vcpu)
{
	u64 epoch = order.epoch;

	if (!(epoch & 1))
		return;
	parked[vcpu].epoch = epoch;
	while (order.epoch == epoch)
		relax();
}

/* Sets *at to when the step after this one is due. A clock that jumped, in either direction, as after a
 * pause or a move to another host, starts a new schedule instead of a burst or a long silence. */
static bool due(u64 *at)
{
	u64 now;
	int64_t late;

	if (!period)
		return true;
	now = rdtsc();
	late = (int64_t)(now - *at);
	if (late > (int64_t)slack || late < -(int64_t)(period + slack))
		*at = now;
	else if (late < 0)
		return false;
	*at += period;
	return true;
}

static void step(u32 vcpu, u64 key)
{
	struct dirty_vcpu *me = &vcpus[vcpu];
	u64 *table = (u64 *)me->table_at, step = me->done + 1, value = step_value(key, step);
	u64 line = step_line(header.pattern, value, step, me->lines);
	u64 *words = (u64 *)line_address(&header, vcpu, line);
	struct mismatch found;

	if (verify && line_wrong(vcpu, line, table[line], &found)) {
		if (!me->mismatches)
			first_found[vcpu] = found;
		me->mismatches++;
	}
	/* The order of abi.h: whoever pauses the guest anywhere in here can tell which line to forgive. */
	me->next = step;
	barrier();
	for (u32 i = 0; i < (header.bytes + 7) / 8; i++)
		words[i] = line_word(value, i, header.bytes);
	barrier();
	if (header.table)
		table[line] = step;
	barrier();
	me->done = step;
	barrier();
}

void writer_run(u32 vcpu, void (*serve)(void))
{
	u64 key = stream_key(header.seed, vcpu), at = rdtsc();

	for (;;) {
		if (header.steps && vcpus[vcpu].done == header.steps)
			relax();
		else if (due(&at))
			step(vcpu, key);
		else
			relax();
		if (serve)
			serve();
		else
			park_if_told(vcpu);
	}
}
