/* The shared counters, and each vCPU's own account of what it did to them. */
#include "lines.h"

static struct counters *accounts; /* PAGE_LINES for each vCPU */

struct counters *counters_page(void) { return (struct counters *)(header.base + (header.pages - 1) * PAGE_BYTES); }

void counters_init(void)
{
	u8 *bytes = alloc_pages(header.vcpus);

	accounts = (struct counters *)bytes;
	for (u64 i = 0; i < (u64)header.vcpus * PAGE_BYTES; i++)
		bytes[i] = 0;
}

void counters_note(u32 vcpu, const struct op *o)
{
	struct counters *c = &accounts[vcpu * PAGE_LINES + (o->at - (u64)counters_page()) / LINE_BYTES];

	if (o->kind == ATOMIC16) {
		c->sum[0] += o->value;
		c->sum[1] += o->value + WORD_GAMMA;
		return;
	}
	switch (o->form) {
	case C_XADD32:
		c->sum32 += (u32)o->value;
		break;
	case C_OR:
	case C_BTS:
		c->or |= 1ULL << (o->value & 63);
		break;
	case C_INC:
		c->sum[0]++;
		break;
	default:
		c->sum[0] += o->value;
	}
}

u64 counters_wrong(void)
{
	const struct counters *found = counters_page();
	u64 wrong = 0;

	for (u32 i = 0; i < PAGE_LINES; i++) {
		struct counters want = {{0}, 0, 0, {0}};

		for (u32 v = 0; v < header.vcpus; v++) {
			const struct counters *c = &accounts[v * PAGE_LINES + i];

			want.sum[0] += c->sum[0];
			want.sum[1] += c->sum[1];
			want.or |= c->or;
			want.sum32 += c->sum32;
		}
		wrong += (want.sum[0] != found[i].sum[0]) + (want.sum[1] != found[i].sum[1]) +
			 (want.or != found[i].or) + (want.sum32 != found[i].sum32);
	}
	return wrong;
}
