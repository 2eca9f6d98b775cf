/* Draws that depend on a seed and a number alone, so that whoever looks from outside can repeat them. */
#ifndef RT_RANDOM_H
#define RT_RANDOM_H

#include "guest.h"

/* SplitMix64 (Steele, Lea, Flood 2014): mix is a bijection. */
#define GOLDEN 0x9e3779b97f4a7c15ULL
#define WORD_GAMMA 0xd1342543de82ef95ULL

static inline u64 mix(u64 z)
{
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

static inline u64 scale(u64 draw, u64 n) { return (u64)((unsigned __int128)draw * n >> 64); }

static inline u64 stream_key(u64 seed, u32 vcpu) { return mix(seed + (vcpu + 1) * GOLDEN); }

static inline u64 step_value(u64 key, u64 step) { return mix(key + step * GOLDEN); }

#endif
