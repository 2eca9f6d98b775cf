#include "textflag.h"

// XCHG with memory is locked without a prefix: indivisible and a full barrier
// (Intel SDM vol. 3, "Automatic Locking"), as sync/atomic stores 32 and 64 bits.

// func exchange8(p *uint8, v uint8)
TEXT ·exchange8(SB), NOSPLIT, $0-9
	MOVQ p+0(FP), AX
	MOVB v+8(FP), BX
	XCHGB BX, (AX)
	RET

// func exchange16(p *uint16, v uint16)
TEXT ·exchange16(SB), NOSPLIT, $0-10
	MOVQ p+0(FP), AX
	MOVW v+8(FP), BX
	XCHGW BX, (AX)
	RET
