/* Contexts: virtual ranges in, dirty lines of virtual pages out. */
#include "fineline_track.h"

static uint64_t lower(uint64_t a, uint64_t b) { return a < b ? a : b; }

static uint64_t page_of(uint64_t address) { return address & ~(uint64_t)(FL_PAGE_BYTES - 1); }

static int command(struct fl_context *c, struct flfpga_command what, struct flfpga_completion *done)
{
	what.context = c->id;
	return fl_execute(c->device, &what, done);
}

static int simple(struct fl_context *c, uint32_t opcode)
{
	struct flfpga_completion done;

	return command(c, (struct flfpga_command){.opcode = opcode}, &done);
}

/* count ranges, which stand in the device's memory. */
static int ranges_command(struct fl_context *c, uint32_t opcode, uint32_t count)
{
	uint64_t at = fl_translate(c->device->memory) + __builtin_offsetof(struct fl_memory, ranges);
	struct flfpga_completion done;

	return command(c, (struct flfpga_command){.opcode = opcode, .count = count, .address = at}, &done);
}

int fl_create(struct fl_context *c, struct fl_device *d, uint32_t mode, uint32_t flags, struct fl_run *runs,
	      uint32_t max_runs)
{
	struct flfpga_completion done;
	int error;

	*c = (struct fl_context){.device = d, .runs = runs, .max_runs = max_runs};
	error = command(c, (struct flfpga_command){.opcode = FLFPGA_OP_CREATE, .flags = mode | flags}, &done);
	if (!error)
		c->id = (uint32_t)done.result;
	return error;
}

int fl_destroy(struct fl_context *c)
{
	int error = simple(c, FLFPGA_OP_DESTROY);

	if (!error)
		c->run_count = 0;
	return error;
}

int fl_start(struct fl_context *c) { return simple(c, FLFPGA_OP_START); }

int fl_stop(struct fl_context *c) { return simple(c, FLFPGA_OP_STOP); }

/* One page must keep one address in each space, or a harvest would not know which virtual page it was. */
static bool aliased(const struct fl_run *have, const struct fl_run *piece)
{
	uint64_t end = have->bytes - 1;
	bool same_virtual = page_of(piece->virtual) >= page_of(have->virtual) &&
			    page_of(piece->virtual) <= page_of(have->virtual + end);
	bool same_physical = page_of(piece->physical) >= page_of(have->physical) &&
			     page_of(piece->physical) <= page_of(have->physical + end);

	return (same_virtual || same_physical) && have->virtual - have->physical != piece->virtual - piece->physical;
}

static bool follows(const struct fl_run *run, const struct fl_run *piece)
{
	return run->virtual + run->bytes == piece->virtual && run->physical + run->bytes == piece->physical;
}

static bool holds(const struct fl_run *run, uint64_t address)
{
	return address >= run->virtual && address - run->virtual < run->bytes;
}

/* Adds a piece of one page to the runs from `first` on, which the device does not know yet. */
static int add(struct fl_context *c, const struct fl_run *piece, uint32_t first)
{
	for (uint32_t i = 0; i < c->run_count; i++)
		if (aliased(&c->runs[i], piece))
			return FL_ERR_ALIASED;
	for (uint32_t i = 0; i < c->run_count; i++)
		if (holds(&c->runs[i], piece->virtual) && holds(&c->runs[i], piece->virtual + piece->bytes - 1))
			return 0;
	if (c->run_count > first && follows(&c->runs[c->run_count - 1], piece)) {
		c->runs[c->run_count - 1].bytes += piece->bytes;
		return 0;
	}
	if (c->run_count == c->max_runs)
		return FL_ERR_NO_RUNS;
	c->runs[c->run_count++] = *piece;
	return 0;
}

/* The part of a range, from `done` on, that lies in one page. */
static struct fl_run piece_at(const struct fl_range *range, uint64_t done)
{
	uint64_t at = (uint64_t)(uintptr_t)range->start + done, physical = fl_translate((void *)(uintptr_t)page_of(at));

	if (physical != FL_NOT_MAPPED)
		physical += at - page_of(at);
	return (struct fl_run){at, physical, lower(range->bytes - done, page_of(at) + FL_PAGE_BYTES - at)};
}

/* Tells the device the runs from `first` on; if it refuses them they are forgotten. */
static int flush(struct fl_context *c, uint32_t first)
{
	struct flfpga_range *out = c->device->memory->ranges;
	uint32_t count = c->run_count - first;
	int error;

	if (!count)
		return 0;
	for (uint32_t i = 0; i < count; i++)
		out[i] = (struct flfpga_range){c->runs[first + i].physical, c->runs[first + i].bytes};
	error = ranges_command(c, FLFPGA_OP_REGISTER, count);
	if (error)
		c->run_count = first;
	return error;
}

/* A range that goes on where the one before it ended needs no run of its own. */
static void join(struct fl_context *c, uint32_t first)
{
	if (first && first < c->run_count && follows(&c->runs[first - 1], &c->runs[first])) {
		c->runs[first - 1].bytes += c->runs[first].bytes;
		c->runs[first] = c->runs[--c->run_count];
	}
}

int fl_register(struct fl_context *c, const struct fl_range *list, uint32_t count)
{
	uint32_t first = c->run_count;
	int error = 0, refused;

	for (uint32_t i = 0; i < count; i++) {
		for (uint64_t done = 0; done < list[i].bytes;) {
			struct fl_run piece = piece_at(&list[i], done);

			error = piece.physical == FL_NOT_MAPPED ? FL_ERR_NOT_MAPPED : add(c, &piece, first);
			if (error)
				goto out;
			done += piece.bytes;
			if (c->run_count - first < FL_BATCH_RANGES)
				continue;
			error = flush(c, first);
			if (error)
				return error;
			first = c->run_count;
		}
	}
out:
	refused = flush(c, first);
	if (!refused)
		join(c, first);
	return refused ? refused : error;
}

/* Takes a piece out of every run that has a part of it. The caller has made sure that there is room. */
static void subtract(struct fl_context *c, uint64_t from, uint64_t to)
{
	for (uint32_t i = c->run_count; i-- > 0;) {
		struct fl_run *run = &c->runs[i], right;
		uint64_t end = run->virtual + run->bytes;

		if (to <= run->virtual || from >= end)
			continue;
		right = (struct fl_run){to, run->physical + (to - run->virtual), end - to};
		run->bytes = from > run->virtual ? from - run->virtual : 0;
		if (to < end && run->bytes)
			c->runs[c->run_count++] = right;
		else if (to < end)
			*run = right;
		else if (!run->bytes)
			*run = c->runs[--c->run_count];
	}
}

/* How many runs a piece would cut in two. */
static uint32_t cuts(const struct fl_context *c, uint64_t from, uint64_t to)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < c->run_count; i++)
		n += c->runs[i].virtual < from && to < c->runs[i].virtual + c->runs[i].bytes;
	return n;
}

/* The addresses are those the range was registered with: by now the system may translate otherwise. */
static int unregister(struct fl_context *c, uint64_t from, uint64_t to)
{
	while (from < to) {
		const struct fl_run *run = c->runs, *end = c->runs + c->run_count;
		uint64_t bytes;
		int error;

		while (run < end && !holds(run, from))
			run++;
		if (run == end)
			return FLFPGA_ERR_NOT_REGISTERED;
		bytes = lower(to - from, run->bytes - (from - run->virtual));
		if (cuts(c, from, from + bytes) > c->max_runs - c->run_count)
			return FL_ERR_NO_RUNS;
		c->device->memory->ranges[0] = (struct flfpga_range){run->physical + (from - run->virtual), bytes};
		error = ranges_command(c, FLFPGA_OP_UNREGISTER, 1);
		if (error)
			return error;
		subtract(c, from, from + bytes);
		from += bytes;
	}
	return 0;
}

int fl_unregister(struct fl_context *c, const struct fl_range *list, uint32_t count)
{
	int error = 0;

	for (uint32_t i = 0; i < count && !error; i++) {
		uint64_t from = (uint64_t)(uintptr_t)list[i].start;

		error = unregister(c, from, from + list[i].bytes);
	}
	return error;
}

/* A page of which any line is registered has its run; what was unregistered is not harvested. */
static uint64_t virtual_page(const struct fl_context *c, uint64_t physical)
{
	for (uint32_t i = 0; i < c->run_count; i++) {
		const struct fl_run *run = &c->runs[i];

		if (physical >= page_of(run->physical) && physical <= page_of(run->physical + run->bytes - 1))
			return physical + (run->virtual - run->physical);
	}
	return FL_NOT_MAPPED;
}

int fl_harvest(struct fl_context *c, uint32_t flags, struct fl_page *pages, uint32_t max, uint32_t *count, bool *more)
{
	const struct flfpga_record *records = c->device->memory->records;
	struct flfpga_completion done = {0};
	int error = command(c, (struct flfpga_command){
		.opcode = FLFPGA_OP_HARVEST, .flags = flags, .count = (uint32_t)lower(max, FL_BATCH_RECORDS),
		.address = fl_translate(records),
	}, &done);

	for (*count = 0; *count < done.result; (*count)++) {
		const struct flfpga_record *r = &records[*count];

		pages[*count] = (struct fl_page){virtual_page(c, r->page), r->lines, r->changed_bytes, r->flags};
	}
	*more = done.flags & FLFPGA_COMPLETION_MORE;
	return error;
}
