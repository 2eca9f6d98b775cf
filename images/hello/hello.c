/*
 * hello: says hello as early as it can, then ends as told.
 *
 *   exit=V         end by isa-debug-exit with V instead of power-off
 *   halt=spin      never end
 *   loop=pio       read port= (0x80) count= times before ending
 *   loop=mmio      read the 32-bit word at addr= (0xd0000000) count= times before ending
 */
#include "../rt/guest.h"

struct options {
	bool exits, spins;
	enum { LOOP_NONE, LOOP_PIO, LOOP_MMIO } loop;
	u64 exit, count, port, addr;
};

/* Words it does not know are not an error: the command line is also text to be shown. */
static struct options parse(const char *cmdline)
{
	struct options o = {.count = 1, .port = 0x80, .addr = 0xd0000000};
	struct arg a;

	while (arg_next(&cmdline, &a)) {
		if (arg_key(&a, "exit"))
			o.exits = arg_number(&a, &o.exit);
		else if (arg_key(&a, "halt"))
			o.spins = arg_value(&a, "spin");
		else if (arg_key(&a, "loop"))
			o.loop = arg_value(&a, "pio") ? LOOP_PIO : arg_value(&a, "mmio") ? LOOP_MMIO : LOOP_NONE;
		else if (arg_key(&a, "count"))
			arg_number(&a, &o.count);
		else if (arg_key(&a, "port"))
			arg_number(&a, &o.port);
		else if (arg_key(&a, "addr"))
			arg_number(&a, &o.addr);
	}
	return o;
}

/* Nothing else leaves the guest between the two lines it prints, so the host can count and time. */
static void run_loop(const struct options *o)
{
	u64 started;

	if (o->loop == LOOP_MMIO)
		map_mmio(o->addr);
	put_text("loop start\n");
	put_flush();
	started = rdtsc();
	for (u64 i = 0; i < o->count; i++) {
		if (o->loop == LOOP_PIO)
			inb((u16)o->port);
		else
			(void)*(volatile u32 *)o->addr;
	}
	started = rdtsc() - started;
	put_text("loop end count=");
	put_dec(o->count);
	put_text(" tsc=");
	put_dec(started);
	put_text("\n");
	put_flush();
}

void main(const struct start_info *info)
{
	const char *cmdline;
	struct options o;

	/* `bench boot` waits for this byte: it goes out before anything else is done. */
	outb(COM1, 'H');
	serial_init();
	faults_init();
	cmdline = info->cmdline_at ? (const char *)info->cmdline_at : "";
	put_text("ello from Fineline: ");
	put_dec(ram_bytes(info) >> 20);
	put_text(" MiB of memory, cmdline \"");
	put_text(cmdline);
	put_text("\"\n");
	put_flush();

	o = parse(cmdline);
	if (o.loop != LOOP_NONE) {
		map_ram(info);
		run_loop(&o);
	}
	while (o.spins)
		relax();
	if (o.exits)
		debug_exit((u32)o.exit);
	power_off();
}

void ap_main(u32 vcpu)
{
	(void)vcpu; /* hello wakes nobody */
	for (;;)
		relax();
}
