/* The device's registers and rings: one command at a time. */
#include "fineline_track.h"

#define LOOKS_AT_STATUS 4096 /* looks at the completion for one at the status register, which is an exit */

static volatile uint32_t *reg(const struct fl_device *d, uint32_t offset)
{
	return (volatile uint32_t *)(d->registers + offset);
}

uint32_t fl_register32(const struct fl_device *d, uint32_t offset) { return *reg(d, offset); }

static void set(const struct fl_device *d, uint32_t offset, uint32_t value) { *reg(d, offset) = value; }

static void set_address(const struct fl_device *d, uint32_t offset, uint64_t value)
{
	set(d, offset, (uint32_t)value);
	set(d, offset + 4, (uint32_t)(value >> 32));
}

uint32_t fl_ring_error(const struct fl_device *d)
{
	return fl_register32(d, FLFPGA_STATUS) & FLFPGA_STATUS_ERROR ? fl_register32(d, FLFPGA_ERROR) : 0;
}

/* Returns when the device stores nothing any more. A device that is gone reads as all ones, and stores nothing. */
static void reset(const struct fl_device *d)
{
	uint32_t status;

	set(d, FLFPGA_CONTROL, 0);
	while ((status = fl_register32(d, FLFPGA_STATUS)) && status != UINT32_MAX)
		fl_relax();
}

/* As all ones it is also one in error. */
static int await_enabled(const struct fl_device *d)
{
	for (;;) {
		uint32_t status = fl_register32(d, FLFPGA_STATUS);

		if (status & FLFPGA_STATUS_ERROR)
			return FL_ERR_RINGS;
		if (status & FLFPGA_STATUS_ENABLED)
			return 0;
		fl_relax();
	}
}

int fl_open(struct fl_device *d, uint64_t registers, struct fl_memory *memory)
{
	uint64_t ring = fl_translate(memory);

	*d = (struct fl_device){.registers = fl_map(registers, FLFPGA_BAR_BYTES), .memory = memory};
	if (!d->registers || ring == FL_NOT_MAPPED || fl_translate(memory->records) == FL_NOT_MAPPED)
		return FL_ERR_NOT_MAPPED;
	if (fl_register32(d, FLFPGA_ID) != FLFPGA_MAGIC || fl_register32(d, FLFPGA_VERSION) != FLFPGA_ABI_VERSION)
		return FL_ERR_VERSION;
	reset(d);
	for (uint32_t i = 0; i < FL_RING_ENTRIES; i++)
		memory->completions[i].sequence = 0; /* of an earlier opening */
	set_address(d, FLFPGA_CMD_RING, ring + __builtin_offsetof(struct fl_memory, commands));
	set_address(d, FLFPGA_CPL_RING, ring + __builtin_offsetof(struct fl_memory, completions));
	set(d, FLFPGA_CMD_ENTRIES, FL_RING_ENTRIES);
	set(d, FLFPGA_CPL_ENTRIES, FL_RING_ENTRIES);
	set(d, FLFPGA_CONTROL, FLFPGA_CONTROL_ENABLE);
	return await_enabled(d);
}

void fl_close(struct fl_device *d) { reset(d); }

/* The sequence word is the last that the device writes: whoever sees it sees the completion and all that the
 * command wrote before. */
static int await(const struct fl_device *d, const struct flfpga_completion *c)
{
	for (uint32_t look = 1; __atomic_load_n(&c->sequence, __ATOMIC_ACQUIRE) != d->commands; look++) {
		if (look % LOOKS_AT_STATUS == 0 && fl_register32(d, FLFPGA_STATUS) & FLFPGA_STATUS_ERROR)
			return FL_ERR_RINGS;
		fl_relax();
	}
	return 0;
}

int fl_execute(struct fl_device *d, const struct flfpga_command *command, struct flfpga_completion *completion)
{
	uint32_t slot = d->commands % FL_RING_ENTRIES;
	const struct flfpga_completion *done = &d->memory->completions[slot];
	int error;

	d->memory->commands[slot] = *command;
	d->commands++;
	__atomic_thread_fence(__ATOMIC_RELEASE);
	set(d, FLFPGA_DOORBELL, d->commands);
	error = await(d, done);
	if (error)
		return error;
	*completion = *done;
	set(d, FLFPGA_CPL_TAKEN, d->commands);
	return (int)completion->status;
}

const char *fl_error(int error)
{
	switch (error) {
	case FLFPGA_OK:
		return "no error";
	case FLFPGA_ERR_OPCODE:
		return "unknown opcode";
	case FLFPGA_ERR_FLAGS:
		return "unknown flag or mode, or a reserved field is not 0";
	case FLFPGA_ERR_CONTEXT:
		return "no such context";
	case FLFPGA_ERR_STATE:
		return "the context is started, stopped, or was never started";
	case FLFPGA_ERR_ADDRESS:
		return "an address is misaligned, or not RAM";
	case FLFPGA_ERR_COUNT:
		return "the count is 0 or too large";
	case FLFPGA_ERR_NOT_REGISTERED:
		return "the range is not registered";
	case FLFPGA_ERR_NO_SPACE:
		return "too many contexts or ranges";
	case FLFPGA_ERR_HOST:
		return "the host could not do it; its log says why";
	case FL_ERR_NO_DEVICE:
		return "no Fineline tracker on PCI bus 0";
	case FL_ERR_VERSION:
		return "the device's ABI has another version";
	case FL_ERR_RINGS:
		return "the device stopped reading its rings";
	case FL_ERR_NOT_MAPPED:
		return "a page has no physical address";
	case FL_ERR_ALIASED:
		return "the page is registered already, under another address";
	case FL_ERR_NO_RUNS:
		return "too many separate runs of pages for this context";
	}
	return "unknown error";
}
