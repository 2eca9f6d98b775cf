/* What the files of `lines` share. */
#ifndef LINES_H
#define LINES_H

#include "abi.h"

enum { TRACK_NONE = -1 }; /* else FLFPGA_MODE_* */

struct options {
	u64 pages, seed, vcpus, steps, base, rounds, misuse;
	u32 kinds;
	int track;
};

extern struct lines_header header;
extern struct lines_vcpu vcpus[MAX_VCPUS];

/* options.c: reads the command line; an unknown word or a number out of range ends the guest. */
struct options options_parse(const char *cmdline);
void put_kinds(u32 kinds);

/* program.c: what step (from 1) of a vCPU is. A function of the header's seed, vcpus, base, pages and kinds alone. */
struct op op_of(u32 vcpu, u64 step);

/* access.c, vector.c: does it. Returns what it loaded, folded into loaded. */
void access_init(void);
u64 access_run(const struct op *o, u64 loaded);
u64 vector_run(const struct op *o, u64 loaded);
u32 kinds_possible(void); /* what this processor, as cpl0.S has set it up, can do */
extern u32 lines_xcr0;    /* cpl0.S: what it switched on; 0 without XSAVE */

/* counters.c: what each vCPU added to the counters, and whether that is what they hold. */
void counters_init(void);
void counters_note(u32 vcpu, const struct op *o);
u64 counters_wrong(void); /* how many; all vCPUs between two rounds */
struct counters *counters_page(void);

/* rounds.c: the steps. A round begins for all when vCPU 0 says so, and has ended when all have done theirs. */
void rounds_init(void);
_Noreturn void rounds_follow(u32 vcpu); /* every vCPU but 0 */
void rounds_next(void);       /* vCPU 0: one round, of all */
u64 stored_lines(u64 page);   /* in the last round, by any vCPU */

/* track.c: the guest drives the tracker and compares what it harvests with what it knows. */
void track_alloc(void);
void track_start(u32 mode);
void track_check(void); /* after each round */
struct fl_device *track_device(void); /* opened; an error ends the guest */

/* misuse.c: provokes every error of the device that a guest can provoke, on the first pages of the region. */
void misuse(void);

static inline u64 bits(u64 mask)
{
	u64 n = 0;

	for (; mask; mask &= mask - 1)
		n++;
	return n;
}

void put_field(const char *name, u64 v);
void put_address(const char *name, u64 v);

#endif
