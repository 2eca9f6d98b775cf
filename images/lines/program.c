/* The random program: a step is drawn from the seed, the vCPU and the step's number, and from nothing else. */
#include "lines.h"

enum { DRAW_KIND, DRAW_FORM, DRAW_WIDTH, DRAW_SPAN, DRAW_PLACE, DRAW_EDGE, DRAW_ACROSS, DRAW_VALUE, DRAW_FROM, DRAW_FROM_PLACE };

struct span {
	u64 first, bytes;
};

static u64 draw(u64 value, u32 i) { return mix(value + i * WORD_GAMMA); }

static u32 draw_kind(u64 d)
{
	u32 left = (u32)scale(d, bits(header.kinds)), kind = 0;

	for (;; kind++)
		if (header.kinds >> kind & 1 && !left--)
			return kind;
}

static u32 forms(u32 kind)
{
	switch (kind) {
	case SCALAR:
		return SCALAR_FORMS;
	case STRING:
		return STRING_FORMS;
	case ATOMIC:
		return ATOMIC_FORMS;
	case LOAD:
	case ATOMIC16:
		return 1;
	}
	return VECTOR_FORMS;
}

static struct span draw_span(u32 vcpu, u64 d)
{
	u64 data = (header.pages - 1) * PAGE_BYTES, blocks = data / BLOCK_BYTES, mine;

	if (header.vcpus == 1)
		return (struct span){header.base, data};
	mine = (blocks - vcpu + header.vcpus - 1) / header.vcpus;
	return (struct span){header.base + (scale(d, mine) * header.vcpus + vcpu) * BLOCK_BYTES, BLOCK_BYTES};
}

static bool inside(struct span s, u64 at, u64 bytes)
{
	return at >= s.first && at - s.first <= s.bytes && bytes <= s.bytes - (at - s.first);
}

/* Anywhere in the span; half of the places that need no alignment lie across the end of a line, an eighth of
 * all across the end of a page, if the span has one there. */
static u64 place(struct span s, u64 bytes, u64 align, u64 v)
{
	u64 at = s.first + scale(draw(v, DRAW_PLACE), s.bytes - bytes + 1), edge = draw(v, DRAW_EDGE), unit, across;

	if (align > 1) {
		at &= ~(align - 1);
		return at < s.first ? at + align : at;
	}
	if (edge & 4)
		return at;
	unit = edge & 3 ? LINE_BYTES : PAGE_BYTES;
	across = (at & ~(unit - 1)) + unit - 1 - scale(draw(v, DRAW_ACROSS), bytes);
	return inside(s, across, bytes) ? across : at;
}

/* Half of the moves read the constant source; the others read the span, half of these near the place they
 * write to, so that they overlap. */
static void draw_from(struct op *o, struct span s, u64 v)
{
	u64 choice = draw(v, DRAW_FROM), d = draw(v, DRAW_FROM_PLACE), near;

	o->outside = choice & 1;
	if (o->outside) {
		o->from = scale(d, SOURCE_BYTES - o->bytes + 1);
		return;
	}
	o->from = s.first + scale(d, s.bytes - o->bytes + 1);
	near = o->at - o->bytes + scale(d, 2 * o->bytes);
	if (choice & 2 && inside(s, near, o->bytes))
		o->from = near;
}

static void draw_counter(struct op *o, u64 v)
{
	static const u8 offset[] = {
		[C_XADD32] = __builtin_offsetof(struct counters, sum32), [C_OR] = __builtin_offsetof(struct counters, or),
		[C_BTS] = __builtin_offsetof(struct counters, or),
	};
	u64 line = (u64)counters_page() + scale(draw(v, DRAW_PLACE), PAGE_LINES) * LINE_BYTES;

	o->bytes = o->kind == ATOMIC16 ? 16 : o->form == C_XADD32 ? 4 : 8;
	o->at = line + (o->kind == ATOMIC16 ? 0 : offset[o->form]);
}

struct op op_of(u32 vcpu, u64 step)
{
	u64 v = step_value(stream_key(header.seed, vcpu), step), width = draw(v, DRAW_WIDTH), align = 1;
	struct op o = {.kind = draw_kind(draw(v, DRAW_KIND)), .value = draw(v, DRAW_VALUE)};
	struct span s = draw_span(vcpu, draw(v, DRAW_SPAN));

	o.form = (u32)scale(draw(v, DRAW_FORM), forms(o.kind));
	o.bytes = 1u << scale(width, 4);
	switch (o.kind) {
	case SCALAR:
		if (o.form == S_NONTEMPORAL)
			o.bytes = 4u << scale(width, 2);
		break;
	case STRING:
		o.bytes = 1 + (u32)scale(width, STRING_MAX_BYTES);
		if (o.form == MOVSQ || o.form == MOVSQ_BACK || o.form == STOSQ)
			o.bytes = (o.bytes + 7) & ~7u;
		break;
	case SSE:
	case AVX:
	case EVEX:
		o.bytes = o.kind == SSE ? 16 : o.kind == AVX ? 32 : 64;
		if (o.form >= V_ALIGNED)
			align = o.bytes;
		break;
	case ATOMIC:
	case ATOMIC16:
		if (o.kind == ATOMIC16 || o.form >= C_ADD) {
			draw_counter(&o, v);
			return o;
		}
		if (o.form == A_BTS)
			o.bytes = 8;
		align = o.bytes; /* a lock across two lines stops the whole host, which may forbid it */
		break;
	}
	o.at = place(s, o.bytes, align, v);
	if (o.kind == STRING && o.form <= MOVSQ_BACK)
		draw_from(&o, s, v);
	return o;
}
