/* The command line. Strict: a misspelt option would quietly measure something else. */
#include "dirty.h"

static const char *const patterns[] = {"seq", "random", "zipf", "stride", "cluster"};

const char *pattern_name(u32 pattern) { return patterns[pattern]; }

static _Noreturn void refuse(const struct arg *a)
{
	put_text("option \"");
	put_chars(a->key, (size_t)(a->value + a->value_len - a->key));
	put_text("\": ");
	die("unknown, or its value is out of range");
}

static bool parse_pattern(const struct arg *a, u32 *out)
{
	for (u32 i = 0; i < sizeof(patterns) / sizeof(*patterns); i++)
		if (arg_value(a, patterns[i])) {
			*out = i;
			return true;
		}
	return false;
}

static bool parse_number(struct options *o, const struct arg *a)
{
	const struct {
		const char *key;
		u64 *to, min, max;
	} numbers[] = {
		{"pages", &o->pages, 1, DIRTY_MAX_LINES},
		{"lines", &o->lines, 1, PAGE_LINES},
		{"bytes", &o->bytes, 1, LINE_BYTES},
		{"rate", &o->rate, 0, 1000000000},
		{"seed", &o->seed, 0, ~0ULL},
		{"vcpus", &o->vcpus, 1, MAX_VCPUS},
		{"steps", &o->steps, 0, ~0ULL >> 1},
		{"base", &o->base, 0, ~0ULL >> 1},
		{"tsc_khz", &o->tsc_khz, 1, 100000000},
		{"progress", &o->progress, 0, 1},
		{"table", &o->table, 0, 1},
		{"verify", &o->verify, 0, 1},
	};

	for (u32 i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
		if (arg_key(a, numbers[i].key))
			return arg_number(a, numbers[i].to) && *numbers[i].to >= numbers[i].min &&
			       *numbers[i].to <= numbers[i].max;
	return false;
}

struct options options_parse(const char *cmdline)
{
	struct options o = {
		.pages = 4096, .lines = 4, .bytes = LINE_BYTES, .rate = 100000, .seed = 1, .vcpus = 1,
		.progress = 1, .table = 1, .verify = 1, .pattern = PATTERN_RANDOM,
	};
	struct arg a;

	while (arg_next(&cmdline, &a))
		if (!(arg_key(&a, "pattern") ? parse_pattern(&a, &o.pattern) : parse_number(&o, &a)))
			refuse(&a);
	if (o.pages * o.lines > DIRTY_MAX_LINES || o.pages * o.lines < o.vcpus)
		die("pages times lines: more than 2147483647, or fewer than vcpus");
	o.verify &= o.table; /* without the table nobody knows what to expect before a store */
	return o;
}
