/*
 * The guest's own check. It does not believe the table: it replays the sequence backwards from `done`, and the
 * first time it meets a line is the last time that line was written. It ends as soon as every line was
 * met, so a run of a week is checked as fast as a run of minutes.
 */
#include "dirty.h"

static u64 *seen; /* a bit for each line of one vCPU */

void check_init(void)
{
	u64 lines = vcpu_lines(header.pages * header.lines, header.vcpus, 0); /* vCPU 0 has the most */

	seen = alloc_pages((lines / 8 + PAGE_BYTES) / PAGE_BYTES);
}

bool line_wrong(u32 vcpu, u64 line, u64 step, struct mismatch *out)
{
	u64 at = line_address(&header, vcpu, line);
	u64 value = step_value(stream_key(header.seed, vcpu), step);
	const u64 *words = (const u64 *)at;

	for (u32 i = 0; i < LINE_BYTES / 8; i++) {
		u64 expected = step ? line_word(value, i, header.bytes) : 0;

		if (words[i] != expected) {
			*out = (struct mismatch){at, step, 8 * i, expected, words[i], vcpu};
			return true;
		}
	}
	return false;
}

/* Also a wrong table entry counts: it was lost or stale memory as well. */
static bool wrong(u32 vcpu, u64 line, u64 step, struct mismatch *out)
{
	const u64 *table = (const u64 *)vcpus[vcpu].table_at;

	if (line_wrong(vcpu, line, step, out))
		return true;
	if (!header.table || table[line] == step)
		return false;
	*out = (struct mismatch){(u64)&table[line], step, 0, step, table[line], vcpu};
	return true;
}

static u64 check_vcpu(u32 vcpu, struct mismatch *first)
{
	u64 n = vcpus[vcpu].lines, left = n, count = 0, key = stream_key(header.seed, vcpu);
	struct mismatch found;

	for (u64 i = 0; i <= n / 64; i++)
		seen[i] = 0;
	for (u64 step = vcpus[vcpu].done; step && left; step--) {
		u64 line = step_line(header.pattern, step_value(key, step), step, n);

		if (seen[line / 64] >> line % 64 & 1)
			continue;
		seen[line / 64] |= 1ULL << line % 64;
		left--;
		if (wrong(vcpu, line, step, &found) && !count++)
			*first = found;
	}
	for (u64 line = 0; line < n && left; line++)
		if (!(seen[line / 64] >> line % 64 & 1) && wrong(vcpu, line, 0, &found) && !count++)
			*first = found;
	return count;
}

u64 check_all(struct mismatch *first)
{
	u64 count = 0;

	for (u32 v = 0; v < header.vcpus; v++) {
		struct mismatch found;
		u64 n = check_vcpu(v, &found);

		if (n && !count)
			*first = found;
		count += n;
	}
	return count;
}
