/*
 * Fineline's line tracker for C programs: which 64-byte lines of these pages were written?
 *
 * A thin library over the device's ABI (../include/fineline_fpga.h). It needs no libc, allocates nothing, and
 * waits by polling. One thread at a time may use a device.
 *
 *	fl_find(0, FL_WINDOW, &registers);
 *	fl_open(&device, registers, &memory);
 *	fl_create(&context, &device, FLFPGA_MODE_DIFF, 0, runs, 16);
 *	fl_register(&context, &(struct fl_range){array, sizeof(array)}, 1);
 *	fl_start(&context);
 *	... write ...
 *	do
 *		fl_harvest(&context, 0, pages, 64, &count, &more);
 *	while (more);
 *
 * The application names virtual addresses; the device wants physical ones. The library asks the system
 * (fl_translate) page by page when a range is registered, and remembers the answers, so that a harvest comes
 * back in virtual addresses. Registered pages must stay where they are.
 *
 * Every function returns 0, a status of the device (FLFPGA_ERR_*), or one of the library's own.
 */
#ifndef FINELINE_TRACK_H
#define FINELINE_TRACK_H

#include <stdbool.h>
#include <stdint.h>

#include "fineline_fpga.h"

#define FL_PAGE_BYTES 4096
#define FL_WINDOW 0xc0000000u /* where Fineline's machines have room for BARs: up to 0xdfffffff */

/* Errors of the library; the device's end far below. */
enum {
	FL_ERR_NO_DEVICE = 256, /* not on bus 0 */
	FL_ERR_VERSION,         /* a device of another ABI */
	FL_ERR_RINGS,           /* the device stopped reading its rings, see fl_ring_error */
	FL_ERR_NOT_MAPPED,      /* a page that fl_translate does not know */
	FL_ERR_ALIASED,         /* the page is registered already, under another virtual or physical address */
	FL_ERR_NO_RUNS,         /* the context's array of runs is full */
};
const char *fl_error(int error); /* a text without a line end; also for 0 and for unknown numbers */

/* What the system gives the library. */
uint64_t fl_translate(const void *page);                /* its physical address; FL_NOT_MAPPED if it has none */
void *fl_map(uint64_t physical, uint64_t bytes);        /* makes the device's registers reachable */
uint32_t fl_in32(uint16_t port);
void fl_out32(uint16_t port, uint32_t value);
void fl_relax(void);                                    /* between two looks at a completion */
#define FL_NOT_MAPPED UINT64_MAX

/* Finds the index-th tracker on bus 0, gives it the registers' address at if it has none yet (a page of the
 * PCI window that nobody else uses), and lets it answer and reach memory. */
int fl_find(uint32_t index, uint32_t at, uint64_t *registers);

#define FL_RING_ENTRIES 16
#define FL_BATCH_RANGES 128
#define FL_BATCH_RECORDS 128

/* Memory that the device reads and writes. Each of the two pages lies in one physical page. */
struct fl_memory {
	struct flfpga_command commands[FL_RING_ENTRIES];
	struct flfpga_completion completions[FL_RING_ENTRIES];
	struct flfpga_range ranges[FL_BATCH_RANGES];
	_Alignas(FL_PAGE_BYTES) struct flfpga_record records[FL_BATCH_RECORDS];
} __attribute__((aligned(FL_PAGE_BYTES)));
_Static_assert(sizeof(struct fl_memory) == 2 * FL_PAGE_BYTES, "two pages");

struct fl_device {
	volatile uint8_t *registers;
	struct fl_memory *memory;
	uint32_t commands; /* ever put into the ring */
};

/* Resets the device and gives it its rings. memory is the device's until fl_close. */
int fl_open(struct fl_device *d, uint64_t registers, struct fl_memory *memory);
void fl_close(struct fl_device *d); /* its contexts are gone; memory is the caller's again */
uint32_t fl_register32(const struct fl_device *d, uint32_t offset); /* a register of the device */
uint32_t fl_ring_error(const struct fl_device *d); /* FLFPGA_RING_*, or 0 */

/* One command and its completion; returns its status. What follows is made of it. */
int fl_execute(struct fl_device *d, const struct flfpga_command *command, struct flfpga_completion *completion);

/* Registered bytes that are contiguous in both address spaces. */
struct fl_run {
	uint64_t virtual, physical, bytes;
};

struct fl_context {
	struct fl_device *device;
	struct fl_run *runs; /* the caller's, until fl_destroy */
	uint32_t max_runs, run_count;
	uint32_t id;
};

/* A range that an application names. Whole lines: a multiple of 64, and of 64 bytes. */
struct fl_range {
	const void *start;
	uint64_t bytes;
};

/* The written lines of a page. */
struct fl_page {
	uint64_t virtual;       /* of the page */
	uint64_t lines;         /* bit i: line i, never 0 */
	uint32_t changed_bytes; /* when FLFPGA_RECORD_COUNTED */
	uint32_t flags;         /* FLFPGA_RECORD_* */
};

/* flags: FLFPGA_CREATE_*. A run is needed for each stretch that is contiguous in both address spaces. */
int fl_create(struct fl_context *c, struct fl_device *d, uint32_t mode, uint32_t flags, struct fl_run *runs,
	      uint32_t max_runs);
int fl_destroy(struct fl_context *c);

/* On an error the ranges before the one that failed are done, in the order of the list. Registering lines
 * twice is the same as once. */
int fl_register(struct fl_context *c, const struct fl_range *list, uint32_t count);
int fl_unregister(struct fl_context *c, const struct fl_range *list, uint32_t count);

int fl_start(struct fl_context *c); /* each store from its return on will be harvested */
int fl_stop(struct fl_context *c);

/* Fills at most max pages, says how many, and whether more wait: then the next call goes on where this one ended.
 * What was found before an error is there too, and will not come again. flags: FLFPGA_HARVEST_*. */
int fl_harvest(struct fl_context *c, uint32_t flags, struct fl_page *pages, uint32_t max, uint32_t *count, bool *more);

#endif
