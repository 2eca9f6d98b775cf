/* The test's device: what it was told, and what it is to answer. */
#ifndef DEVICE_H
#define DEVICE_H

#include "fineline_track.h"

#define CONFIG_SLOTS 8
#define MODEL_CONTEXT 7
#define MODEL_REGISTERS 0xc0123000u
#define MODEL_RANGES 2048

extern struct model {
	uint32_t refuse; /* the status of every command */
	uint32_t broken; /* FLFPGA_RING_*: it stops */
	uint32_t commands;
	struct flfpga_command last;
	uint32_t range_count;
	struct {
		uint32_t opcode;
		struct flfpga_range range;
	} ranges[MODEL_RANGES]; /* of all lists, in their order */
	uint32_t record_count;
	struct flfpga_record records[512]; /* to be harvested */
} model;

void model_reset(void);
void model_map(const void *virtual, uint64_t physical); /* a page */
void model_unmap_all(void);
void *model_registers(void);
uint32_t *model_config(uint32_t slot); /* 64 words */

#endif
