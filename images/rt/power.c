/* The ways to end. HLT is not allowed at CPL 3, so every end is a port write and then a spin. */
#include "guest.h"

enum { PM1A_CONTROL = 0x604, SLEEP_S5 = 0x2000, DEBUG_EXIT = 0xf4 };

void power_off(void)
{
	put_flush();
	for (;;) {
		outw(PM1A_CONTROL, SLEEP_S5);
		relax();
	}
}

void debug_exit(u32 code)
{
	put_flush();
	outl(DEBUG_EXIT, code);
	power_off();
}

void die(const char *why)
{
	put_text("error: ");
	put_text(why);
	put_text("\n");
	debug_exit(1);
}
