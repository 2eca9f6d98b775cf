/* Every error of the device's ABI that a guest can provoke, and whether the device says so. */
#include "lines.h"

#include "fineline_track.h"

static struct fl_device *device;
static u32 wrong;

static void said(const char *name, u32 status, u32 expected)
{
	put_text("misuse ");
	put_text(name);
	put_field(" status=", status);
	put_field(" expected=", expected);
	put_text(status == expected ? "\n" : " wrong\n");
	put_flush();
	wrong += status != expected;
}

static u32 do_command(struct flfpga_command c, u64 *result)
{
	struct flfpga_completion done = {0};
	int status = fl_execute(device, &c, &done);

	if (result)
		*result = done.result;
	return (u32)status;
}

static void try(const char *name, u32 expected, struct flfpga_command c) { said(name, do_command(c, NULL), expected); }

static u32 create(void)
{
	u64 context = 0;
	u32 status = do_command((struct flfpga_command){.opcode = FLFPGA_OP_CREATE, .flags = FLFPGA_MODE_DIFF}, &context);

	if (status)
		said("create", status, 0);
	return (u32)context;
}

static void opcodes_and_flags(void)
{
	try("opcode 0", FLFPGA_ERR_OPCODE, (struct flfpga_command){0});
	try("opcode 99", FLFPGA_ERR_OPCODE, (struct flfpga_command){.opcode = 99});
	try("mode 255", FLFPGA_ERR_FLAGS, (struct flfpga_command){.opcode = FLFPGA_OP_CREATE, .flags = 255});
	try("flag 31", FLFPGA_ERR_FLAGS, (struct flfpga_command){.opcode = FLFPGA_OP_CREATE, .flags = 1u << 31});
	try("reserved field", FLFPGA_ERR_FLAGS, (struct flfpga_command){.opcode = FLFPGA_OP_CREATE, .reserved = {0, 0, 0, 1}});
	try("no such context", FLFPGA_ERR_CONTEXT, (struct flfpga_command){.opcode = FLFPGA_OP_START, .context = 0xfffffff0});
}

static void states(void)
{
	u64 buffer = (u64)device->memory->records;
	struct flfpga_command c = {.context = create()};

	c.opcode = FLFPGA_OP_STOP;
	try("stop, never started", FLFPGA_ERR_STATE, c);
	try("harvest, never started", FLFPGA_ERR_STATE,
	    (struct flfpga_command){.opcode = FLFPGA_OP_HARVEST, .context = c.context, .count = 1, .address = buffer});
	c.opcode = FLFPGA_OP_START;
	try("start", FLFPGA_OK, c);
	try("start again", FLFPGA_ERR_STATE, c);
	c.opcode = FLFPGA_OP_STOP;
	try("stop", FLFPGA_OK, c);
	try("stop again", FLFPGA_ERR_STATE, c);
	c.opcode = FLFPGA_OP_DESTROY;
	try("destroy", FLFPGA_OK, c);
	try("destroy again", FLFPGA_ERR_CONTEXT, c);
}

/* One range at the device's list. */
static u32 with_range(u32 opcode, u32 context, u64 address, u64 bytes)
{
	device->memory->ranges[0] = (struct flfpga_range){address, bytes};
	return do_command((struct flfpga_command){
		.opcode = opcode, .context = context, .count = 1, .address = (u64)device->memory->ranges,
	}, NULL);
}

static void addresses(void)
{
	const u64 no_ram = 0xfee00000; /* the local APIC: never RAM */
	u64 list = (u64)device->memory->ranges;
	struct flfpga_command c = {.opcode = FLFPGA_OP_REGISTER, .context = create(), .count = 1, .address = list + 4};
	u32 x = c.context;

	try("list misaligned", FLFPGA_ERR_ADDRESS, c);
	c.address = no_ram;
	try("list not RAM", FLFPGA_ERR_ADDRESS, c);
	c.address = list;
	c.count = 0;
	try("list of none", FLFPGA_ERR_COUNT, c);
	c.count = 65537;
	try("list of 65537", FLFPGA_ERR_COUNT, c);
	said("range misaligned", with_range(FLFPGA_OP_REGISTER, x, header.base + 8, LINE_BYTES), FLFPGA_ERR_ADDRESS);
	said("range of 63 bytes", with_range(FLFPGA_OP_REGISTER, x, header.base, 63), FLFPGA_ERR_ADDRESS);
	said("range not RAM", with_range(FLFPGA_OP_REGISTER, x, no_ram, LINE_BYTES), FLFPGA_ERR_ADDRESS);
	said("range that wraps", with_range(FLFPGA_OP_REGISTER, x, header.base, -(u64)LINE_BYTES), FLFPGA_ERR_ADDRESS);
	said("unregister of nothing", with_range(FLFPGA_OP_UNREGISTER, x, header.base, LINE_BYTES), FLFPGA_ERR_NOT_REGISTERED);
	said("register", with_range(FLFPGA_OP_REGISTER, x, header.base, PAGE_BYTES), FLFPGA_OK);
	try("start registered", FLFPGA_OK, (struct flfpga_command){.opcode = FLFPGA_OP_START, .context = x});
	c = (struct flfpga_command){.opcode = FLFPGA_OP_HARVEST, .context = x, .count = 1, .address = no_ram};
	try("buffer not RAM", FLFPGA_ERR_ADDRESS, c);
	c.address = (u64)device->memory->records + 4;
	try("buffer misaligned", FLFPGA_ERR_ADDRESS, c);
	c.address -= 4;
	c.flags = 1u << 31;
	try("harvest flag 31", FLFPGA_ERR_FLAGS, c);
	c.flags = c.count = 0;
	try("buffer of none", FLFPGA_ERR_COUNT, c);
	try("destroy started", FLFPGA_OK, (struct flfpga_command){.opcode = FLFPGA_OP_DESTROY, .context = x});
}

static void contexts(void)
{
	u32 max = fl_register32(device, FLFPGA_MAX_CONTEXTS);

	for (u32 i = 0; i < max; i++)
		create();
	try("one context too many", FLFPGA_ERR_NO_SPACE, (struct flfpga_command){.opcode = FLFPGA_OP_CREATE});
}

static void poke(u32 offset, u32 value) { *(volatile u32 *)(device->registers + offset) = value; }

/* Whether or not the reset clears them: only one of the registers shall be wrong. */
static void stop_rings(void)
{
	u32 values[(FLFPGA_CPL_ENTRIES - FLFPGA_CMD_RING) / 4 + 1];

	for (u32 i = 0; i < sizeof(values) / 4; i++)
		values[i] = fl_register32(device, FLFPGA_CMD_RING + 4 * i);
	poke(FLFPGA_CONTROL, 0);
	for (u32 i = 0; i < sizeof(values) / 4; i++)
		poke(FLFPGA_CMD_RING + 4 * i, values[i]);
}

/* Opening again is a reset, so each begins anew. */
static void rings(void)
{
	static const struct {
		const char *name;
		u32 offset, value, expected;
		bool restart; /* the register counts when the rings are enabled */
	} all[] = {
		{"doorbell too far", FLFPGA_DOORBELL, FL_RING_ENTRIES + 1, FLFPGA_RING_BAD_INDEX, false},
		{"completions never put", FLFPGA_CPL_TAKEN, 1, FLFPGA_RING_BAD_INDEX, false},
		{"3 entries", FLFPGA_CMD_ENTRIES, 3, FLFPGA_RING_BAD_ENTRIES, true},
		{"8192 entries", FLFPGA_CPL_ENTRIES, 8192, FLFPGA_RING_BAD_ENTRIES, true},
		{"ring misaligned", FLFPGA_CMD_RING, 0x100008, FLFPGA_RING_BAD_ADDRESS, true},
		{"ring not RAM", FLFPGA_CPL_RING, 0xfee00000, FLFPGA_RING_BAD_ADDRESS, true},
	};

	for (u32 i = 0; i < sizeof(all) / sizeof(*all); i++) {
		device = track_device();
		if (all[i].restart)
			stop_rings();
		poke(all[i].offset, all[i].value);
		if (all[i].restart)
			poke(FLFPGA_CONTROL, FLFPGA_CONTROL_ENABLE);
		/* Commands are taken after the doorbell: give the device as long as it needs to see them. */
		for (u32 look = 0; look < 1000 && !fl_ring_error(device); look++)
			relax();
		said(all[i].name, fl_ring_error(device), all[i].expected);
	}
}

void misuse(void)
{
	device = track_device();
	opcodes_and_flags();
	states();
	addresses();
	contexts();
	rings();
	device = track_device();
	create(); /* it works again */
	fl_close(device);
	put_field("misuse wrong=", wrong);
	put_text("\n");
	put_flush();
}
