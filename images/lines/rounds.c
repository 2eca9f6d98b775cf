/*
 * Rounds. Nothing here, waiting included, stores to the region: orders, records and bitmaps are the guest's own.
 */
#include "lines.h"

/* A line each: all vCPUs read one, and each writes its own of the other. */
static struct {
	volatile u64 round;
} __attribute__((aligned(LINE_BYTES))) order, finished[MAX_VCPUS];

static u64 *stored; /* header.pages masks for each vCPU, of the last round */

void rounds_init(void)
{
	stored = alloc_pages((header.vcpus * header.pages * 8 + PAGE_BYTES - 1) / PAGE_BYTES);
}

static void note_stores(u32 vcpu, const struct op *o)
{
	u64 *masks = stored + vcpu * header.pages;

	for (u64 line = (o->at - header.base) / LINE_BYTES; line <= (o->at - header.base + o->bytes - 1) / LINE_BYTES; line++)
		masks[line / PAGE_LINES] |= 1ULL << line % PAGE_LINES;
}

static void round_of(u32 vcpu)
{
	struct lines_vcpu *me = &vcpus[vcpu];

	for (u64 page = 0; page < header.pages; page++)
		stored[vcpu * header.pages + page] = 0;
	for (u32 i = 0; i < header.steps; i++) {
		struct op o = op_of(vcpu, me->done + 1);

		me->loaded = access_run(&o, me->loaded);
		if (op_stores(&o))
			note_stores(vcpu, &o);
		if (o.kind == ATOMIC16 || (o.kind == ATOMIC && o.form >= C_ADD))
			counters_note(vcpu, &o);
		me->done++;
	}
	barrier();
	finished[vcpu].round++;
}

void rounds_follow(u32 vcpu)
{
	for (;;) {
		while (order.round == finished[vcpu].round)
			relax();
		round_of(vcpu);
	}
}

void rounds_next(void)
{
	order.round++;
	round_of(0);
	for (u32 v = 1; v < header.vcpus; v++)
		while (finished[v].round != order.round)
			relax();
	barrier();
	header.rounds = order.round;
}

u64 stored_lines(u64 page)
{
	u64 lines = 0;

	for (u32 v = 0; v < header.vcpus; v++)
		lines |= stored[v * header.pages + page];
	return lines;
}
