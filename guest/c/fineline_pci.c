/* Finding the device: PCI configuration mechanism #1 (PCI Local Bus 3.0, 3.2.2.3.2), bus 0. */
#include "fineline_track.h"

enum { CONFIG_ADDRESS = 0xcf8, CONFIG_DATA = 0xcfc };
enum { REG_ID = 0x00, REG_COMMAND = 0x04, REG_BAR0 = 0x10 };
enum { COMMAND_MEMORY = 1 << 1, COMMAND_MASTER = 1 << 2 };
enum { BAR_64 = 1 << 2, BAR_FLAGS = 0xf };
#define CONFIG_ENABLE 0x80000000u
#define SLOTS 32

static void choose(uint32_t slot, uint32_t reg) { fl_out32(CONFIG_ADDRESS, CONFIG_ENABLE | slot << 11 | reg); }

static uint32_t config_read(uint32_t slot, uint32_t reg)
{
	choose(slot, reg);
	return fl_in32(CONFIG_DATA);
}

static void config_write(uint32_t slot, uint32_t reg, uint32_t value)
{
	choose(slot, reg);
	fl_out32(CONFIG_DATA, value);
}

/* Fineline has no firmware that places BARs; QEMU's has, and then the address stays. */
static uint64_t place(uint32_t slot, uint32_t at)
{
	uint32_t low = config_read(slot, REG_BAR0);
	uint64_t high = low & BAR_64 ? config_read(slot, REG_BAR0 + 4) : 0;

	if (!(low & ~BAR_FLAGS) && !high)
		config_write(slot, REG_BAR0, at);
	low = config_read(slot, REG_BAR0) & ~(uint32_t)BAR_FLAGS;
	return high << 32 | low;
}

int fl_find(uint32_t index, uint32_t at, uint64_t *registers)
{
	for (uint32_t slot = 0; slot < SLOTS; slot++) {
		if (config_read(slot, REG_ID) != ((uint32_t)FLFPGA_DEVICE_ID << 16 | FLFPGA_VENDOR_ID) || index--)
			continue;
		*registers = place(slot, at);
		/* The upper half is the status register, whose bits are cleared by ones. */
		config_write(slot, REG_COMMAND,
			     (config_read(slot, REG_COMMAND) & 0xffff) | COMMAND_MEMORY | COMMAND_MASTER);
		return 0;
	}
	return FL_ERR_NO_DEVICE;
}
