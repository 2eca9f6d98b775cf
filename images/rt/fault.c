/*
 * A fault is a bug of the guest or a page that lost its bytes on the way: say where, then end.
 *
 * The gates are filled in from CPL 3, after the first byte is out. fault.S enters here at CPL 0.
 */
#include "guest.h"

struct gate {
	u16 offset_0, selector, type, offset_16;
	u32 offset_32, reserved;
};

struct gate idt[32];

extern const char fault_entries[]; /* 32 stubs, FAULT_STUB_BYTES each */
#define FAULT_STUB_BYTES 16
enum { PIC1_MASK = 0x21, PIC2_MASK = 0xa1 };
#define GATE_INTERRUPT 0x8e00

struct fault_frame {
	u64 cr2, vector, error, rip;
};

void faults_init(void)
{
	/* Nobody here wants an interrupt. They are off in RFLAGS, but software KVM shows IF set at CPL 3, and
	 * firmware may have left its timer running: mask both PICs. */
	outb(PIC1_MASK, 0xff);
	outb(PIC2_MASK, 0xff);
	for (u32 i = 0; i < 32; i++) {
		u64 at = (u64)fault_entries + i * FAULT_STUB_BYTES;

		idt[i] = (struct gate){(u16)at, SEL_CODE64, GATE_INTERRUPT, (u16)(at >> 16), (u32)(at >> 32), 0};
	}
}

_Noreturn void fault(const struct fault_frame *f)
{
	put_text("\nfault vector=");
	put_dec(f->vector);
	put_text(" error=");
	put_hex(f->error);
	put_text(" rip=");
	put_hex(f->rip);
	put_text(" address=");
	put_hex(f->cr2);
	put_text("\n");
	debug_exit(1);
}
