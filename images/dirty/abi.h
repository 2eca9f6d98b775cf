/*
 * What `dirty` leaves in memory for whoever looks from outside, and the sequence it writes.
 * images/dirtycheck is the same in Go; images/doc.go explains. A change here is a new DIRTY_VERSION.
 */
#ifndef DIRTY_ABI_H
#define DIRTY_ABI_H

#include "../rt/guest.h"
#include "../rt/random.h"

#define DIRTY_HEADER_AT 0x100000             /* guest-physical address of struct dirty_header */
#define DIRTY_MAGIC 0x3159545249444c46ULL    /* "FLDIRTY1" */
#define DIRTY_VERSION 2
#define DIRTY_MAX_LINES 0x7fffffffULL        /* of all vCPUs: products below stay within 64 bits */
#define LINE_BYTES 64
#define PAGE_LINES 64

enum dirty_pattern { PATTERN_SEQ, PATTERN_RANDOM, PATTERN_ZIPF, PATTERN_STRIDE, PATTERN_CLUSTER };

/* Written once, before the first store; magic last. */
struct dirty_header {
	u64 magic;
	u32 version, vcpus;
	u64 seed, base, pages;
	u32 lines, bytes; /* written lines a page, bytes a line */
	u32 pattern, table; /* table: 1 if the tables of last steps are kept */
	u64 rate, steps, tsc_khz;
	u64 vcpus_at; /* struct dirty_vcpu[vcpus] */
};
_Static_assert(sizeof(struct dirty_header) == 88, "known to dirtycheck");

/*
 * One line of its own a vCPU. Steps count from 1. A step is: next = step; the line; table entry = step;
 * done = step; in this order. So at any instant next is done or done + 1, and in the second case the line
 * and the table entry of step `next`, and nothing else, may be old, new or (the line) a mix of both.
 */
struct dirty_vcpu {
	u64 next, done;
	u64 table_at;   /* u64[lines]: last step that wrote each of this vCPU's lines, 0 = none */
	u64 lines;      /* how many lines are this vCPU's */
	u64 mismatches; /* lines found wrong just before they were written again */
	u64 reserved[3];
};
_Static_assert(sizeof(struct dirty_vcpu) == LINE_BYTES, "known to dirtycheck");

/* A bijection (rt/random.h) gives the values, so a line's first word names the step that wrote it. */
#define DRAW_SALT 0x5851f42d4c957f2dULL
#define RANK_PRIME 2654435761ULL /* more than DIRTY_MAX_LINES, so no number of lines is its multiple */
#define STRIDE_LINES 16
#define CLUSTER_LINES 64         /* a power of two: the bits of a place are scrambled */

/* 64-bit word i of a line written with `value`: bytes beyond the first `bytes` stay zero. */
static inline u64 line_word(u64 value, u32 i, u32 bytes)
{
	u64 word = value + i * WORD_GAMMA;

	if (bytes >= 8 * i + 8)
		return word;
	return bytes <= 8 * i ? 0 : word & ((1ULL << 8 * (bytes - 8 * i)) - 1);
}

/*
 * Zipf with exponent 1, in integers only: ranks 2^k - 1 to 2^(k+1) - 2 are octave k; all octaves are equally
 * likely, and so are the ranks inside one. The last octave also has the ranks that do not fill one. The prime
 * then scatters the hot ranks over the pages.
 */
static inline u64 zipf_line(u64 draw, u64 n)
{
	u32 octaves = (u32)(63 - __builtin_clzll(n + 1));
	unsigned __int128 product = (unsigned __int128)draw * octaves;
	u32 octave = (u32)(product >> 64);
	u64 first = (1ULL << octave) - 1, size = octave + 1 == octaves ? n - first : first + 1;

	return (first + scale((u64)product, size)) * RANK_PRIME % n;
}

/* Every 16th line, then those after them, and so on: each once before any is met again. */
static inline u64 stride_line(u64 rank, u64 n)
{
	u64 each = n / STRIDE_LINES, more = n % STRIDE_LINES; /* so many rows have one more */

	if (rank < more * (each + 1))
		return rank / (each + 1) + rank % (each + 1) * STRIDE_LINES;
	rank -= more * (each + 1);
	return more + rank / each + rank % each * STRIDE_LINES;
}

/* Clusters of 64 neighbours, scattered, and in each of them all lines in an order that looks random: each once
 * before any is met again. The lines that do not fill a cluster come last. */
static inline u64 cluster_line(u64 rank, u64 n)
{
	u64 clusters = n / CLUSTER_LINES, cluster, key, in = rank % CLUSTER_LINES;

	if (rank >= clusters * CLUSTER_LINES)
		return rank;
	cluster = rank / CLUSTER_LINES * RANK_PRIME % clusters;
	key = mix(cluster ^ DRAW_SALT);
	for (u32 i = 0; i < 3; i++, key >>= 12) { /* each a bijection of six bits */
		in = (in * ((key & 62) | 1) + (key >> 6)) % CLUSTER_LINES;
		in ^= in >> 3;
	}
	return cluster * CLUSTER_LINES + in;
}

/* Which of a vCPU's n lines the step with this value writes. */
static inline u64 step_line(u32 pattern, u64 value, u64 step, u64 n)
{
	switch (pattern) {
	case PATTERN_SEQ:
		return (step - 1) % n;
	case PATTERN_STRIDE:
		return stride_line((step - 1) % n, n);
	case PATTERN_CLUSTER:
		return cluster_line((step - 1) % n, n);
	case PATTERN_RANDOM:
		return scale(mix(value ^ DRAW_SALT), n);
	default:
		return zipf_line(mix(value ^ DRAW_SALT), n);
	}
}

/* How many of all the lines are this vCPU's: they go round, line by line. */
static inline u64 vcpu_lines(u64 all, u32 vcpus, u32 vcpu) { return (all - vcpu + vcpus - 1) / vcpus; }

/* Guest-physical address of a vCPU's line. The written lines of a page are spread evenly over its 64,
 * turned by one from page to page so that every place is used. */
static inline u64 line_address(const struct dirty_header *h, u32 vcpu, u64 line)
{
	u32 all = (u32)(line * h->vcpus + vcpu), page = all / h->lines, k = all % h->lines;
	u32 place = (k * PAGE_LINES / h->lines + page) % PAGE_LINES;

	return h->base + (u64)page * PAGE_BYTES + place * LINE_BYTES;
}

#endif
