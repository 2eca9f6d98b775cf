/* Tests of the library against the device in device.c. Prints what is wrong; the exit code is 1 then. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"

static int failures;

#define EXPECT(what, want)                                                                                    \
	do {                                                                                                  \
		unsigned long long got_ = (unsigned long long)(what), want_ = (unsigned long long)(want);     \
		if (got_ != want_ && ++failures)                                                              \
			printf("%s:%d: %s is %#llx, want %#llx\n", __FILE__, __LINE__, #what, got_, want_);   \
	} while (0)

static struct fl_memory memory;
static _Alignas(FL_PAGE_BYTES) char data[600][FL_PAGE_BYTES];
static struct fl_device device;
static struct fl_context context;
static struct fl_run runs[400];

/* Opens the device and a context of `max` runs. The two pages of the device's memory are not neighbours. */
static void begin(uint32_t max)
{
	model_reset();
	model_map(&memory, 0x90000);
	model_map(memory.records, 0x10000);
	EXPECT(fl_open(&device, MODEL_REGISTERS, &memory), 0);
	EXPECT(fl_create(&context, &device, FLFPGA_MODE_DIFF, FLFPGA_CREATE_COUNT_BYTES, runs, max), 0);
	EXPECT(context.id, MODEL_CONTEXT);
	EXPECT(model.last.flags, FLFPGA_CREATE_COUNT_BYTES);
}

static void was_told(uint32_t i, uint32_t opcode, uint64_t address, uint64_t bytes)
{
	EXPECT(model.range_count > i, 1);
	EXPECT(model.ranges[i].opcode, opcode);
	EXPECT(model.ranges[i].range.address, address);
	EXPECT(model.ranges[i].range.bytes, bytes);
}

static void finds(void)
{
	uint64_t at = 0;

	model_reset();
	EXPECT(fl_find(0, 0xd0000000, &at), FL_ERR_NO_DEVICE);
	memset(model_config(3), 0, 256);
	memset(model_config(5), 0, 256);
	model_config(3)[0] = model_config(5)[0] = 0x0001f11e;
	model_config(3)[1] = 0x00100000; /* the status register: not to be written back */
	model_config(5)[4] = 0xe0001008; /* placed, prefetchable */
	EXPECT(fl_find(0, 0xd0000000, &at), 0);
	EXPECT(at, 0xd0000000);
	EXPECT(model_config(3)[1], 6);
	EXPECT(fl_find(1, 0xd0001000, &at), 0);
	EXPECT(at, 0xe0001000);
	EXPECT(model_config(5)[1], 6);
	EXPECT(fl_find(2, 0xd0001000, &at), FL_ERR_NO_DEVICE);
	model_config(3)[4] = 0x4; /* 64 bits wide */
	model_config(3)[5] = 0x12;
	EXPECT(fl_find(0, 0xd0000000, &at), 0);
	EXPECT(at, 0x1200000000);
}

static void opens(void)
{
	model_reset();
	EXPECT(fl_open(&device, MODEL_REGISTERS, &memory), FL_ERR_NOT_MAPPED);
	model_map(&memory, 0x90000);
	model_map(memory.records, 0x10000);
	EXPECT(fl_open(&device, 0x1000, &memory), FL_ERR_NOT_MAPPED);
	((uint32_t *)model_registers())[1] = 2;
	EXPECT(fl_open(&device, MODEL_REGISTERS, &memory), FL_ERR_VERSION);
	memset(model_registers(), 0xff, FLFPGA_BAR_BYTES); /* nobody answers */
	EXPECT(fl_open(&device, MODEL_REGISTERS, &memory), FL_ERR_VERSION);
}

/* More commands than the rings have entries, errors among them. */
static void executes(void)
{
	begin(1);
	for (int i = 0; i < 5 * FL_RING_ENTRIES; i++) {
		model.refuse = i % 10;
		EXPECT(fl_start(&context), i % 10);
		EXPECT(model.last.context, MODEL_CONTEXT);
	}
	EXPECT(model.commands, 5 * FL_RING_ENTRIES + 1);
	EXPECT(fl_register32(&device, FLFPGA_CPL_TAKEN), model.commands);
	model.broken = FLFPGA_RING_BAD_INDEX;
	EXPECT(fl_stop(&context), FL_ERR_RINGS);
	EXPECT(fl_ring_error(&device), FLFPGA_RING_BAD_INDEX);
	fl_close(&device);
	EXPECT(fl_ring_error(&device), 0);
	model.broken = 0;
	EXPECT(fl_open(&device, MODEL_REGISTERS, &memory), 0);
	EXPECT(fl_start(&context), FLFPGA_ERR_HOST); /* as told above */
}

static void registers_and_harvests(void)
{
	struct fl_page pages[4];
	uint32_t count;
	bool more;

	begin(8);
	for (int i = 0; i < 4; i++) /* pages 0 and 1 are neighbours, 2 and 3 change places */
		model_map(data[i], 0x20000 + (i == 2 ? 3 : i == 3 ? 2 : i) * FL_PAGE_BYTES);
	EXPECT(fl_register(&context, &(struct fl_range){data[0] + 128, 3 * FL_PAGE_BYTES}, 1), 0);
	EXPECT(model.range_count, 3);
	was_told(0, FLFPGA_OP_REGISTER, 0x20080, 2 * FL_PAGE_BYTES - 128);
	was_told(1, FLFPGA_OP_REGISTER, 0x23000, FL_PAGE_BYTES);
	was_told(2, FLFPGA_OP_REGISTER, 0x22000, 128);
	EXPECT(fl_register(&context, &(struct fl_range){data[2], 256}, 1), 0); /* again: nothing to tell */
	EXPECT(model.range_count, 3);
	EXPECT(context.run_count, 3);

	model.records[0] = (struct flfpga_record){.page = 0x21000, .lines = 5, .changed_bytes = 9, .flags = FLFPGA_RECORD_COUNTED};
	model.records[1] = (struct flfpga_record){.page = 0x22000, .lines = 1};
	model.records[2] = (struct flfpga_record){.page = 0x23000, .lines = 1ull << 63};
	model.record_count = 3;
	EXPECT(fl_harvest(&context, 0, pages, 2, &count, &more), 0);
	EXPECT(count, 2);
	EXPECT(more, true);
	EXPECT(pages[0].virtual, (uintptr_t)data[1]);
	EXPECT(pages[0].lines, 5);
	EXPECT(pages[0].changed_bytes, 9);
	EXPECT(pages[0].flags, FLFPGA_RECORD_COUNTED);
	EXPECT(pages[1].virtual, (uintptr_t)data[3]);
	EXPECT(fl_harvest(&context, FLFPGA_HARVEST_NO_SNOOP, pages, 4, &count, &more), 0);
	EXPECT(count, 1);
	EXPECT(more, false);
	EXPECT(pages[0].virtual, (uintptr_t)data[2]);
	EXPECT(model.last.flags, FLFPGA_HARVEST_NO_SNOOP);
	model.records[0] = (struct flfpga_record){.page = 0x20000, .lines = 4};
	model.record_count = 1;
	model.refuse = FLFPGA_ERR_HOST; /* after the first record */
	EXPECT(fl_harvest(&context, 0, pages, 4, &count, &more), FLFPGA_ERR_HOST);
	EXPECT(count, 1);
	EXPECT(pages[0].virtual, (uintptr_t)data[0]);
	EXPECT(fl_harvest(&context, 0, pages, 4, &count, &more), FLFPGA_ERR_HOST);
	EXPECT(count, 0);
}

/* A buffer larger than what the device is given at once. */
static void harvests_many(void)
{
	static struct fl_page pages[300];
	uint32_t count, sum = 0;
	bool more = true;

	begin(400);
	for (uint32_t i = 0; i < 300; i++) {
		model_map(data[i], 0x100000 + i * 2 * FL_PAGE_BYTES); /* no two are neighbours */
		model.records[i] = (struct flfpga_record){.page = 0x100000 + i * 2 * FL_PAGE_BYTES, .lines = 1};
	}
	EXPECT(fl_register(&context, &(struct fl_range){data, 300 * FL_PAGE_BYTES}, 1), 0);
	EXPECT(model.range_count, 300);
	EXPECT(context.run_count, 300);
	EXPECT(model.commands, 1 + 3); /* lists of 128 */
	for (model.record_count = 300; more; sum += count) {
		EXPECT(fl_harvest(&context, 0, pages, 300, &count, &more), 0);
		for (uint32_t i = 0; i < count; i++)
			EXPECT(pages[i].virtual, (uintptr_t)data[sum + i]);
	}
	EXPECT(sum, 300);
}

static void unregisters(void)
{
	begin(2);
	for (int i = 0; i < 4; i++)
		model_map(data[i], 0x20000 + i * FL_PAGE_BYTES);
	EXPECT(fl_register(&context, (struct fl_range[]){{data[0], 64}, {data[0] + 64, 4 * FL_PAGE_BYTES - 64}}, 2), 0);
	EXPECT(context.run_count, 1);
	model_unmap_all(); /* the addresses are those of the registration */
	model_map(&memory, 0x90000);
	EXPECT(fl_unregister(&context, &(struct fl_range){data[1], 64}, 1), 0);
	was_told(1, FLFPGA_OP_UNREGISTER, 0x21000, 64);
	EXPECT(context.run_count, 2);
	EXPECT(fl_unregister(&context, &(struct fl_range){data[1], 64}, 1), FLFPGA_ERR_NOT_REGISTERED);
	EXPECT(fl_unregister(&context, &(struct fl_range){data[2], 64}, 1), FL_ERR_NO_RUNS); /* a third run */
	model.refuse = FLFPGA_ERR_HOST;
	EXPECT(fl_unregister(&context, &(struct fl_range){data[0], 64}, 1), FLFPGA_ERR_HOST);
	model.refuse = 0;
	EXPECT(fl_unregister(&context, &(struct fl_range){data[0], FL_PAGE_BYTES}, 1), 0);
	was_told(2, FLFPGA_OP_UNREGISTER, 0x20000, FL_PAGE_BYTES);
	EXPECT(context.run_count, 1);
	EXPECT(fl_unregister(&context, &(struct fl_range){data[1] + 64, 3 * FL_PAGE_BYTES - 64}, 1), 0);
	was_told(3, FLFPGA_OP_UNREGISTER, 0x21040, 3 * FL_PAGE_BYTES - 64);
	EXPECT(context.run_count, 0);
	EXPECT(fl_destroy(&context), 0);
}

static void refuses(void)
{
	begin(2);
	model_map(data[0], 0x20000);
	model_map(data[1], 0x20000);
	model_map(data[3], 0x30000);
	EXPECT(fl_register(&context, &(struct fl_range){data[2], 64}, 1), FL_ERR_NOT_MAPPED);
	EXPECT(model.range_count, 0);
	EXPECT(fl_register(&context, &(struct fl_range){data[0], 2 * FL_PAGE_BYTES}, 1), FL_ERR_ALIASED);
	EXPECT(model.range_count, 1); /* what came before the error is done */
	EXPECT(fl_register(&context, &(struct fl_range){data[1], 64}, 1), FL_ERR_ALIASED);
	model_map(data[0], 0x40000); /* moved */
	EXPECT(fl_register(&context, &(struct fl_range){data[0] + 64, 64}, 1), FL_ERR_ALIASED);
	model.refuse = FLFPGA_ERR_NO_SPACE;
	EXPECT(fl_register(&context, &(struct fl_range){data[3], 64}, 1), FLFPGA_ERR_NO_SPACE);
	EXPECT(context.run_count, 1);
	model.refuse = 0;
	EXPECT(fl_register(&context, &(struct fl_range){data[3], 64}, 1), 0);
	EXPECT(fl_register(&context, &(struct fl_range){data[3] + 128, 64}, 1), FL_ERR_NO_RUNS);
}

static void texts(void)
{
	for (int i = 0; i <= FL_ERR_NO_RUNS; i = i == FLFPGA_ERR_HOST ? FL_ERR_NO_DEVICE : i + 1)
		EXPECT(strcmp(fl_error(i), "unknown error") == 0, false);
	EXPECT(strcmp(fl_error(-1), "unknown error"), 0);
}

int main(void)
{
	finds();
	opens();
	executes();
	registers_and_harvests();
	harvests_many();
	unregisters();
	refuses();
	texts();
	printf("%d failures\n", failures);
	return failures != 0;
}
