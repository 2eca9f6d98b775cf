/* The command line. Strict: a misspelt option would quietly test something else. */
#include "lines.h"

#include "fineline_fpga.h"

static const char *const kind_names[KINDS] = {"scalar", "string", "sse", "atomic", "load", "avx", "evex", "atomic16"};
#define KINDS_DEFAULT (1 << SCALAR | 1 << STRING | 1 << SSE | 1 << ATOMIC | 1 << LOAD)

static const char *const modes[] = {
	[FLFPGA_MODE_DIFF] = "diff", [FLFPGA_MODE_STORES] = "stores", [FLFPGA_MODE_HOMED] = "homed",
};

void put_kinds(u32 kinds)
{
	const char *comma = "";

	for (u32 i = 0; i < KINDS; i++) {
		if (!(kinds >> i & 1))
			continue;
		put_text(comma);
		put_text(kind_names[i]);
		comma = ",";
	}
}

static _Noreturn void refuse(const struct arg *a)
{
	put_text("option \"");
	put_chars(a->key, (size_t)(a->value + a->value_len - a->key));
	put_text("\": ");
	die("unknown, or its value is out of range");
}

static bool parse_kinds(const struct arg *a, u32 *out)
{
	const char *list = a->value;
	size_t left = a->value_len;
	struct arg item;

	*out = 0;
	while (arg_item(&list, &left, &item)) {
		u32 i = 0;

		while (i < KINDS && !arg_key(&item, kind_names[i]))
			i++;
		if (i == KINDS)
			return false;
		*out |= 1u << i;
	}
	return *out;
}

static bool parse_track(const struct arg *a, int *out)
{
	for (u32 i = 0; i < sizeof(modes) / sizeof(*modes); i++)
		if (arg_value(a, modes[i])) {
			*out = (int)i;
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
		{"pages", &o->pages, 2, 1 << 20}, {"seed", &o->seed, 0, ~0ULL},
		{"vcpus", &o->vcpus, 1, 8},       {"steps", &o->steps, 1, 1 << 30},
		{"base", &o->base, 0, ~0ULL >> 1}, {"rounds", &o->rounds, 0, ~0ULL},
		{"misuse", &o->misuse, 0, 1},
	};

	for (u32 i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
		if (arg_key(a, numbers[i].key))
			return arg_number(a, numbers[i].to) && *numbers[i].to >= numbers[i].min &&
			       *numbers[i].to <= numbers[i].max;
	return false;
}

static bool parse(struct options *o, const struct arg *a)
{
	if (arg_key(a, "kinds"))
		return parse_kinds(a, &o->kinds);
	if (arg_key(a, "track"))
		return parse_track(a, &o->track);
	return parse_number(o, a);
}

struct options options_parse(const char *cmdline)
{
	struct options o = {
		.pages = 16, .seed = 1, .vcpus = 1, .steps = 256, .kinds = KINDS_DEFAULT, .track = TRACK_NONE,
	};
	struct arg a;

	while (arg_next(&cmdline, &a))
		if (!parse(&o, &a))
			refuse(&a);
	return o;
}
