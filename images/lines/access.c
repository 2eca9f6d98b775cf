/* Scalar, string and locked accesses: one instruction of each form. */
#include "lines.h"

static u64 source[SOURCE_BYTES / 8];

void access_init(void)
{
	for (u32 i = 0; i < SOURCE_BYTES / 8; i++)
		source[i] = source_word(i);
}

#define TO_MEMORY(insn, suffix, part) __asm__ volatile(insn suffix " %" part "1, (%0)" : : "r"(at), "r"(v) : "memory", "cc")
#define EXCHANGE(insn, suffix, part) __asm__ volatile(insn suffix " %" part "0, (%1)" : "+r"(v) : "r"(at) : "memory", "cc")
#define LOAD_FROM(insn, suffix, part) __asm__ volatile(insn suffix " (%1), %" part "0" : "+r"(v) : "r"(at) : "memory")
#define BY_WIDTH(bytes, what, insn)             \
	do {                                    \
		switch (bytes) {                \
		case 1:                         \
			what(insn, "b", "b");   \
			break;                  \
		case 2:                         \
			what(insn, "w", "w");   \
			break;                  \
		case 4:                         \
			what(insn, "l", "k");   \
			break;                  \
		case 8:                         \
			what(insn, "q", "q");   \
			break;                  \
		}                               \
	} while (0)

static u64 low(u64 v, u32 bytes) { return bytes == 8 ? v : v & ((1ULL << 8 * bytes) - 1); }

static u64 load(u64 at, u32 bytes)
{
	u64 v = 0;

	BY_WIDTH(bytes, LOAD_FROM, "mov");
	return low(v, bytes);
}

static void scalar(const struct op *o)
{
	u64 at = o->at, v = o->value;

	switch (o->form) {
	case S_SILENT:
		v = load(at, o->bytes);
		__attribute__((fallthrough));
	case S_STORE:
		BY_WIDTH(o->bytes, TO_MEMORY, "mov");
		break;
	case S_ADD:
		BY_WIDTH(o->bytes, TO_MEMORY, "add");
		break;
	case S_XOR:
		BY_WIDTH(o->bytes, TO_MEMORY, "xor");
		break;
	case S_NONTEMPORAL:
		if (o->bytes == 4)
			TO_MEMORY("movnti", "l", "k");
		else
			TO_MEMORY("movnti", "q", "q");
		break;
	}
}

/* A string operation that goes backwards starts at its last unit. */
static void string(const struct op *o)
{
	bool words = o->form == MOVSQ || o->form == MOVSQ_BACK || o->form == STOSQ;
	bool back = o->form == MOVSB_BACK || o->form == MOVSQ_BACK;
	u64 last = back ? o->bytes - (words ? 8 : 1) : 0, count = words ? o->bytes / 8 : o->bytes;
	u64 to = o->at + last, from = (o->outside ? (u64)source : 0) + o->from + last;

	switch (o->form) {
	case MOVSB:
		__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
		break;
	case MOVSQ:
		__asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
		break;
	case MOVSB_BACK:
		__asm__ volatile("std; rep movsb; cld" : "+D"(to), "+S"(from), "+c"(count) : : "memory", "cc");
		break;
	case MOVSQ_BACK:
		__asm__ volatile("std; rep movsq; cld" : "+D"(to), "+S"(from), "+c"(count) : : "memory", "cc");
		break;
	case STOSB:
		__asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(o->value) : "memory");
		break;
	case STOSQ:
		__asm__ volatile("rep stosq" : "+D"(to), "+c"(count) : "a"(o->value) : "memory");
		break;
	}
}

/* Adds by compare and exchange, until nobody came between. */
static void add_8b(u64 at, u64 value)
{
	u64 old = *(volatile u64 *)at;
	bool done;

	do {
		u64 sum = old + value;
		u32 low = (u32)old, high = (u32)(old >> 32);

		__asm__ volatile("lock cmpxchg8b (%3)"
				 : "+a"(low), "+d"(high), "=@ccz"(done)
				 : "r"(at), "b"((u32)sum), "c"((u32)(sum >> 32))
				 : "memory");
		old = (u64)high << 32 | low;
	} while (!done);
}

static void add_16b(u64 at, u64 value)
{
	u64 low = ((volatile u64 *)at)[0], high = ((volatile u64 *)at)[1];
	bool done;

	do
		__asm__ volatile("lock cmpxchg16b (%3)"
				 : "+a"(low), "+d"(high), "=@ccz"(done)
				 : "r"(at), "b"(low + value), "c"(high + value + WORD_GAMMA)
				 : "memory");
	while (!done);
}

#define COMPARE(insn, suffix, part)                        \
	__asm__ volatile(insn suffix " %" part "2, (%1)"   \
			 : "+a"(old)                       \
			 : "r"(at), "r"(v)                 \
			 : "memory", "cc")

/* On bytes that only this vCPU changes, so that what it finds there is known. */
static u64 atomic_private(const struct op *o, u64 loaded)
{
	u64 at = o->at, v = o->value, old;

	switch (o->form) {
	case A_XCHG:
		BY_WIDTH(o->bytes, EXCHANGE, "xchg");
		return fold(loaded, low(v, o->bytes));
	case A_XADD:
		BY_WIDTH(o->bytes, EXCHANGE, "lock xadd");
		return fold(loaded, low(v, o->bytes));
	case A_CMPXCHG:
		old = load(at, o->bytes);
		BY_WIDTH(o->bytes, COMPARE, "lock cmpxchg");
		return fold(loaded, low(old, o->bytes));
	case A_BTS:
		v &= 63;
		TO_MEMORY("lock bts", "q", "q");
	}
	return loaded;
}

static void atomic_counter(const struct op *o)
{
	u64 at = o->at, v = o->value;

	switch (o->form) {
	case C_ADD:
		TO_MEMORY("lock add", "q", "q");
		break;
	case C_INC:
		__asm__ volatile("lock incq (%0)" : : "r"(at) : "memory", "cc");
		break;
	case C_XADD:
		EXCHANGE("lock xadd", "q", "q");
		break;
	case C_XADD32:
		EXCHANGE("lock xadd", "l", "k");
		break;
	case C_CMPXCHG8B:
		add_8b(at, v);
		break;
	case C_OR:
		v = 1ULL << (v & 63);
		TO_MEMORY("lock or", "q", "q");
		break;
	case C_BTS:
		v &= 63;
		TO_MEMORY("lock bts", "q", "q");
		break;
	}
}

u64 access_run(const struct op *o, u64 loaded)
{
	switch (o->kind) {
	case SCALAR:
		scalar(o);
		return loaded;
	case STRING:
		string(o);
		return loaded;
	case LOAD:
		return fold(loaded, load(o->at, o->bytes));
	case ATOMIC:
		if (o->form < C_ADD)
			return atomic_private(o, loaded);
		atomic_counter(o);
		return loaded;
	case ATOMIC16:
		add_16b(o->at, o->value);
		return loaded;
	}
	return vector_run(o, loaded);
}
