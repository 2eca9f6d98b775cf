/*
 * Vector accesses: one register, one instruction of each form. The compiler is told to leave vector registers alone
 * (-mgeneral-regs-only), so nothing is clobbered that it knows of.
 */
#include "lines.h"

#define VECTOR(name, reg, unaligned, unaligned_float, aligned, aligned_float, nontemporal)              \
	static void name##_load(u64 at) { __asm__ volatile(unaligned " (%0), " reg : : "r"(at) : "memory"); } \
	static void name##_store(u64 at, u32 form)                                                      \
	{                                                                                               \
		switch (form) {                                                                         \
		case V_SILENT:                                                                          \
		case V_UNALIGNED:                                                                       \
			__asm__ volatile(unaligned " " reg ", (%0)" : : "r"(at) : "memory");            \
			break;                                                                          \
		case V_UNALIGNED_FLOAT:                                                                 \
			__asm__ volatile(unaligned_float " " reg ", (%0)" : : "r"(at) : "memory");      \
			break;                                                                          \
		case V_ALIGNED:                                                                         \
			__asm__ volatile(aligned " " reg ", (%0)" : : "r"(at) : "memory");              \
			break;                                                                          \
		case V_ALIGNED_FLOAT:                                                                   \
			__asm__ volatile(aligned_float " " reg ", (%0)" : : "r"(at) : "memory");        \
			break;                                                                          \
		case V_NONTEMPORAL:                                                                     \
			__asm__ volatile(nontemporal " " reg ", (%0)" : : "r"(at) : "memory");          \
			break;                                                                          \
		}                                                                                       \
	}

VECTOR(sse, "%%xmm1", "movdqu", "movups", "movdqa", "movaps", "movntdq")
VECTOR(avx, "%%ymm1", "vmovdqu", "vmovups", "vmovdqa", "vmovaps", "vmovntdq")
VECTOR(evex, "%%zmm1", "vmovdqu64", "vmovups", "vmovdqa64", "vmovaps", "vmovntdq")

static void load(u32 kind, u64 at)
{
	if (kind == SSE)
		sse_load(at);
	else if (kind == AVX)
		avx_load(at);
	else
		evex_load(at);
}

static void store(u32 kind, u64 at, u32 form)
{
	if (kind == SSE)
		sse_store(at, form);
	else if (kind == AVX)
		avx_store(at, form);
	else
		evex_store(at, form);
}

u64 vector_run(const struct op *o, u64 loaded)
{
	u64 words[8];

	if (o->form == V_LOAD || o->form == V_SILENT) {
		load(o->kind, o->at);
	} else {
		for (u32 i = 0; i < o->bytes / 8; i++)
			words[i] = o->value + i * WORD_GAMMA;
		load(o->kind, (u64)words);
	}
	if (o->form != V_LOAD) {
		store(o->kind, o->at, o->form);
		return loaded;
	}
	store(o->kind, (u64)words, V_UNALIGNED);
	for (u32 i = 0; i < o->bytes / 8; i++)
		loaded = fold(loaded, words[i]);
	return loaded;
}

/* What could be switched on, which may be less than CPUID promises. */
u32 kinds_possible(void)
{
	enum { XCR0_AVX = 0x06, XCR0_AVX512 = 0xe6 };
	u32 kinds = (1 << KINDS) - 1 - (1 << AVX) - (1 << EVEX);

	if ((lines_xcr0 & XCR0_AVX) == XCR0_AVX)
		kinds |= 1 << AVX;
	if ((lines_xcr0 & XCR0_AVX512) == XCR0_AVX512)
		kinds |= 1 << EVEX;
	return kinds;
}
