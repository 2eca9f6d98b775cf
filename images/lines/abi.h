/*
 * What `lines` leaves in memory for whoever looks from outside, and the program it runs.
 * images/linescheck is the same in Go; images/doc.go explains. A change here is a new LINES_VERSION.
 */
#ifndef LINES_ABI_H
#define LINES_ABI_H

#include "../rt/guest.h"
#include "../rt/random.h"

#define LINES_MAGIC 0x3153454e494c4c46ULL /* "FLLINES1" */
#define LINES_VERSION 1
#define LINE_BYTES 64
#define PAGE_LINES 64

/* Kinds of access: bits of a mask. The header's has those that the processor can do. */
enum kind { SCALAR, STRING, SSE, ATOMIC, LOAD, AVX, EVEX, ATOMIC16, KINDS };

/* Guest-physical 0x100000. Written before the first round, magic last; then only rounds. */
struct lines_header {
	u64 magic;
	u32 version, vcpus;
	u64 seed, base, pages;
	u32 kinds, steps; /* steps: of each vCPU in a round */
	u64 rounds;       /* finished by all */
	u64 vcpus_at;     /* struct lines_vcpu[vcpus] */
};
_Static_assert(sizeof(struct lines_header) == 64, "known to linescheck");

struct lines_vcpu {
	u64 done;   /* steps */
	u64 loaded; /* all that was loaded, folded */
	u64 reserved[6];
};
_Static_assert(sizeof(struct lines_vcpu) == LINE_BYTES, "known to linescheck");

/*
 * The last page of the region is of counters, one struct a line, that all vCPUs change by locked operations whose order
 * does not matter. The rest is data: with one vCPU one span, with more of them spans of BLOCK_BYTES that go
 * round the vCPUs. No access of a vCPU leaves its spans, but lines at their edges are shared.
 */
#define BLOCK_BYTES 352 /* five lines and a half */

struct counters {
	u64 sum[2]; /* added to; together by cmpxchg16b */
	u64 or;     /* bits are set */
	u32 sum32;
	u32 unused[9];
};
_Static_assert(sizeof(struct counters) == LINE_BYTES, "a line");

/* The forms of each kind. SSE, AVX and EVEX have the vector forms, with 16, 32 and 64 bytes. */
enum scalar_form { S_STORE, S_SILENT, S_ADD, S_XOR, S_NONTEMPORAL, SCALAR_FORMS };
enum string_form { MOVSB, MOVSB_BACK, MOVSQ, MOVSQ_BACK, STOSB, STOSQ, STRING_FORMS };
enum vector_form { V_LOAD, V_SILENT, V_UNALIGNED, V_UNALIGNED_FLOAT, V_ALIGNED, V_ALIGNED_FLOAT, V_NONTEMPORAL, VECTOR_FORMS };
/* From C_ADD on: of a counter. */
enum atomic_form {
	A_XCHG, A_CMPXCHG, A_XADD, A_BTS,
	C_ADD, C_INC, C_XADD, C_XADD32, C_CMPXCHG8B, C_OR, C_BTS, ATOMIC_FORMS
};

#define STRING_MAX_BYTES 160
#define SOURCE_BYTES 1024 /* constant bytes outside of the region, for string moves */

/* One step: at most one contiguous range is stored to. */
struct op {
	u32 kind, form;
	u32 bytes; /* of the access, or of all units of a string operation */
	bool outside; /* from is an offset in the source, not an address */
	u64 at;    /* first byte */
	u64 from;  /* first byte that a string move reads */
	u64 value; /* word i of it: value + i·WORD_GAMMA */
};

static inline bool op_stores(const struct op *o)
{
	return o->kind != LOAD && !((o->kind == SSE || o->kind == AVX || o->kind == EVEX) && o->form == V_LOAD);
}

static inline u64 fold(u64 loaded, u64 word) { return mix(loaded ^ word) + GOLDEN; }

static inline u64 source_word(u32 i) { return mix(i * GOLDEN); }

#endif
