/*
 * A device in software, behind the five functions that the library wants of a system: enough of docs/fpga.md to see what
 * the library puts into rings and lists. It works whenever the library waits. Memory is an array whose pages
 * the test maps as it likes: "physical" addresses are offsets into ram.
 */
#include "device.h"

#include <stdlib.h>
#include <string.h>

static uint32_t config[CONFIG_SLOTS][64], config_address;
static uint64_t registers[FLFPGA_BAR_BYTES / 8];
static uint32_t taken;
static bool enabled;
static uint32_t idle;
struct model model;

#define IDLE_LOOKS 100000 /* the library waits for what will never come */

#define PAGES 4096
static struct {
	const void *virtual;
	uint64_t physical;
} table[PAGES];
static uint32_t mapped;

void *model_registers(void) { return registers; }

uint32_t *model_config(uint32_t slot) { return config[slot]; }

void model_map(const void *virtual, uint64_t physical)
{
	if (mapped == PAGES)
		abort();
	table[mapped].virtual = virtual;
	table[mapped++].physical = physical;
}

void model_unmap_all(void) { mapped = 0; }

uint64_t fl_translate(const void *page)
{
	for (uint32_t i = mapped; i-- > 0;)
		if (table[i].virtual == page)
			return table[i].physical;
	return FL_NOT_MAPPED;
}

static void *memory_at(uint64_t physical)
{
	for (uint32_t i = 0; i < mapped; i++)
		if (physical - table[i].physical < FL_PAGE_BYTES)
			return (char *)table[i].virtual + (physical - table[i].physical);
	abort();
}

void *fl_map(uint64_t physical, uint64_t bytes)
{
	return physical == MODEL_REGISTERS && bytes <= FLFPGA_BAR_BYTES ? registers : NULL;
}

uint32_t fl_in32(uint16_t port)
{
	uint32_t slot = config_address >> 11 & 31;

	if (port != 0xcfc || !(config_address >> 31) || slot >= CONFIG_SLOTS)
		return ~0u;
	return config[slot][config_address >> 2 & 63];
}

void fl_out32(uint16_t port, uint32_t value)
{
	if (port == 0xcf8)
		config_address = value;
	else if (port == 0xcfc && config_address >> 11 < (1u << 20 | CONFIG_SLOTS))
		config[config_address >> 11 & 31][config_address >> 2 & 63] = value;
}

static uint32_t *reg(uint32_t offset) { return (uint32_t *)((char *)registers + offset); }

static uint64_t reg64(uint32_t offset) { return *reg(offset) | (uint64_t)*reg(offset + 4) << 32; }

static void harvest(const struct flfpga_command *c, struct flfpga_completion *done)
{
	struct flfpga_record *out = memory_at(c->address);

	while (model.record_count && done->result < c->count) {
		out[done->result++] = model.records[0];
		memmove(model.records, model.records + 1, --model.record_count * sizeof(*model.records));
	}
	if (model.record_count)
		done->flags = FLFPGA_COMPLETION_MORE;
}

static void list(const struct flfpga_command *c)
{
	const struct flfpga_range *in = memory_at(c->address);

	for (uint32_t i = 0; i < c->count; i++) {
		if (model.range_count == MODEL_RANGES)
			abort();
		model.ranges[model.range_count].opcode = c->opcode;
		model.ranges[model.range_count++].range = in[i];
	}
}

static void work(const struct flfpga_command *c, struct flfpga_completion *done)
{
	done->cookie = c->cookie;
	done->context = c->context;
	done->status = model.refuse;
	model.commands++;
	model.last = *c;
	if (done->status && c->opcode != FLFPGA_OP_HARVEST)
		return;
	switch (c->opcode) {
	case FLFPGA_OP_CREATE:
		done->result = MODEL_CONTEXT;
		return;
	case FLFPGA_OP_REGISTER:
	case FLFPGA_OP_UNREGISTER:
		list(c);
		return;
	case FLFPGA_OP_HARVEST:
		harvest(c, done);
	}
}

/* One look at the registers, and at most one command: what was put into the ring, or the switch. */
void fl_relax(void)
{
	struct flfpga_completion done = {0}, *to;

	if (!(*reg(FLFPGA_CONTROL) & FLFPGA_CONTROL_ENABLE)) {
		enabled = false;
		*reg(FLFPGA_STATUS) = 0;
		return;
	}
	if (!enabled) {
		enabled = true;
		taken = *reg(FLFPGA_DOORBELL) = 0;
		*reg(FLFPGA_STATUS) = FLFPGA_STATUS_ENABLED;
		return;
	}
	if (model.broken) {
		*reg(FLFPGA_STATUS) |= FLFPGA_STATUS_ERROR;
		*reg(FLFPGA_ERROR) = model.broken;
		return;
	}
	if (*reg(FLFPGA_DOORBELL) == taken) {
		if (++idle == IDLE_LOOKS)
			abort();
		return;
	}
	idle = 0;
	work((struct flfpga_command *)memory_at(reg64(FLFPGA_CMD_RING)) + taken % *reg(FLFPGA_CMD_ENTRIES), &done);
	to = (struct flfpga_completion *)memory_at(reg64(FLFPGA_CPL_RING)) + taken % *reg(FLFPGA_CPL_ENTRIES);
	done.sequence = ++taken;
	*to = done;
}

void model_reset(void)
{
	memset(registers, 0, sizeof(registers));
	memset(config, 0xff, sizeof(config));
	memset(&model, 0, sizeof(model));
	mapped = 0;
	enabled = false;
	*reg(FLFPGA_ID) = FLFPGA_MAGIC;
	*reg(FLFPGA_VERSION) = FLFPGA_ABI_VERSION;
}
