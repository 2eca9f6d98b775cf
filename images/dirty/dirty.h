/* What the files of `dirty` share. */
#ifndef DIRTY_H
#define DIRTY_H

#include "abi.h"

struct options {
	u64 pages, lines, bytes, rate, seed, vcpus, steps, base, tsc_khz, progress, table, verify;
	u32 pattern;
};

extern struct dirty_header header;
extern struct dirty_vcpu vcpus[MAX_VCPUS];

/* options.c: reads the command line; an unknown word or a number out of range ends the guest. */
struct options options_parse(const char *cmdline);
const char *pattern_name(u32 pattern);

/* check.c: a line that does not hold what it must. */
struct mismatch {
	u64 line, step, offset, expected, found;
	u32 vcpu;
};
void check_init(void);
bool line_wrong(u32 vcpu, u64 line, u64 step, struct mismatch *out);
u64 check_all(struct mismatch *first); /* every vCPU at a step boundary; returns how many lines are wrong */

/* write.c: the writers. All run until the end of the guest. */
struct mismatch *writer_first(u32 vcpu); /* the first that the vCPU itself found, if its count is not 0 */
void writers_init(const struct options *o);
_Noreturn void writer_run(u32 vcpu, void (*serve)(void));
void writers_stop(void); /* vCPU 0 only: returns when all others are between two steps */
void writers_go(void);

/* console.c: vCPU 0, between two of its steps: commands, progress, the end. */
void console_init(const struct options *o);
void console_serve(void);

#endif
