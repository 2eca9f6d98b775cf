/*
 * The registers and rings of Fineline's FPGA device, for C. docs/fpga.md explains them; a test compares the
 * two and the device. All numbers are little-endian. Addresses are guest-physical.
 */
#ifndef FINELINE_FPGA_H
#define FINELINE_FPGA_H

#include <stdint.h>

/* PCI identity: vendor 0xf11e is not assigned by the PCI-SIG. BAR 0: registers; BAR 1: MSI-X, one vector. */
#define FLFPGA_VENDOR_ID 0xf11e
#define FLFPGA_DEVICE_ID 0x0001
#define FLFPGA_CLASS     0x120000 /* processing accelerator */

#define FLFPGA_BAR_BYTES 4096

/* Registers of BAR 0, by offset. 4 bytes wide unless it says 8; read and write them whole and aligned (an
 * 8-byte register also in halves). The rings' addresses and sizes can be written while CONTROL_ENABLE is 0, the counts
 * while it is 1; other writes are ignored. */
#define FLFPGA_ID           0x00 /* ro: FLFPGA_MAGIC */
#define FLFPGA_VERSION      0x04 /* ro: FLFPGA_ABI_VERSION */
#define FLFPGA_FEATURES     0x08 /* ro: FLFPGA_FEATURE_* */
#define FLFPGA_MAX_CONTEXTS 0x0c /* ro */
#define FLFPGA_MAX_RANGES   0x10 /* ro: of all contexts together, after neighbours are joined */
#define FLFPGA_CONTROL      0x14 /* rw: FLFPGA_CONTROL_* */
#define FLFPGA_STATUS       0x18 /* ro: FLFPGA_STATUS_* */
#define FLFPGA_ERROR        0x1c /* ro: why STATUS_ERROR is set, FLFPGA_RING_* */
#define FLFPGA_CMD_RING     0x20 /* rw, 8: address of the command ring, a multiple of 64 */
#define FLFPGA_CPL_RING     0x28 /* rw, 8: address of the completion ring, a multiple of 64 */
#define FLFPGA_CMD_ENTRIES  0x30 /* rw: entries of the command ring, a power of two from 2 to 4096 */
#define FLFPGA_CPL_ENTRIES  0x34 /* rw: entries of the completion ring, likewise */
#define FLFPGA_DOORBELL     0x38 /* wo: number of commands put into the ring since it was enabled, modulo 2^32 */
#define FLFPGA_CMD_TAKEN    0x3c /* ro: number of commands taken from it: their entries are free */
#define FLFPGA_CPL_TAKEN    0x40 /* rw: number of completions that the guest has taken from the ring */
#define FLFPGA_CPL_PUT      0x44 /* ro: number of completions put into it */

#define FLFPGA_MAGIC       0x4b544c46 /* "FLTK" */
#define FLFPGA_ABI_VERSION 1

#define FLFPGA_FEATURE_DIFF   (1u << 0) /* mode FLFPGA_MODE_DIFF */
#define FLFPGA_FEATURE_STORES (1u << 1)
#define FLFPGA_FEATURE_HOMED  (1u << 2)

#define FLFPGA_CONTROL_ENABLE    (1u << 0) /* the rings are read; 1 to 0 is a reset: contexts and counts are gone */
#define FLFPGA_CONTROL_INTERRUPT (1u << 1) /* an MSI-X message after completions were put */

#define FLFPGA_STATUS_ENABLED (1u << 0) /* after a reset 0 only once nothing of before stores to memory any more */
#define FLFPGA_STATUS_ERROR   (1u << 1) /* the rings are unusable: nothing is done until a reset */

#define FLFPGA_RING_BAD_ADDRESS 1 /* not aligned, or not RAM */
#define FLFPGA_RING_BAD_ENTRIES 2
#define FLFPGA_RING_BAD_INDEX   3 /* DOORBELL ran ahead by more than the ring holds, CPL_TAKEN by more than was put, or
				   * one of them went back */

/* A command: one entry of the command ring. */
struct flfpga_command {
	uint32_t opcode;  /* FLFPGA_OP_* */
	uint32_t flags;   /* FLFPGA_CREATE_* or FLFPGA_HARVEST_*, else 0 */
	uint64_t cookie;  /* comes back in the completion */
	uint32_t context; /* all but CREATE */
	uint32_t count;   /* ranges of the list, or records that the buffer holds */
	uint64_t address; /* of the list, or of the buffer; a multiple of 8 */
	uint64_t reserved[4]; /* 0 */
};

#define FLFPGA_OP_CREATE     1 /* flags: mode and options. result: the context, never 0 */
#define FLFPGA_OP_DESTROY    2
#define FLFPGA_OP_REGISTER   3 /* count ranges at address; also while started */
#define FLFPGA_OP_UNREGISTER 4 /* count ranges at address; what was pending in them is dropped */
#define FLFPGA_OP_START      5 /* what was found before and not harvested is forgotten */
#define FLFPGA_OP_STOP       6 /* looks a last time; what it finds waits for HARVEST */
#define FLFPGA_OP_HARVEST    7 /* at most count records to address. result: records written, also after an error */

#define FLFPGA_MODE_DIFF    0 /* lines whose bytes changed */
#define FLFPGA_MODE_STORES  1 /* lines stored to; plain data only */
#define FLFPGA_MODE_HOMED   2 /* lines stored to, through modelled caches; plain data only */
#define FLFPGA_CREATE_MODE_MASK  0xffu
#define FLFPGA_CREATE_COUNT_BYTES (1u << 8) /* DIFF only: count the bytes that changed (costs a copy of the memory) */

#define FLFPGA_HARVEST_NO_SNOOP (1u << 0) /* HOMED only: leave written lines in the caches unasked */

/* A range of a scatter list: whole lines. */
struct flfpga_range {
	uint64_t address; /* a multiple of 64 */
	uint64_t bytes;   /* a multiple of 64, not 0 */
};

/* A record of a harvest: the lines of one page. */
struct flfpga_record {
	uint64_t page;          /* its address */
	uint64_t lines;         /* bit i: line i, never 0 */
	uint32_t changed_bytes; /* when FLFPGA_RECORD_COUNTED */
	uint32_t flags;         /* FLFPGA_RECORD_* */
	uint64_t reserved;      /* 0 */
};

#define FLFPGA_RECORD_INEXACT (1u << 0) /* more lines may be set than were written */
#define FLFPGA_RECORD_COUNTED (1u << 1)

/* A completion: one entry of the completion ring. */
struct flfpga_completion {
	uint64_t cookie;
	uint64_t result;
	uint32_t status;   /* FLFPGA_OK or FLFPGA_ERR_* */
	uint32_t flags;    /* FLFPGA_COMPLETION_* */
	uint32_t context;
	uint32_t sequence; /* written last: 1 + the number of completions put before, modulo 2^32 */
};

#define FLFPGA_COMPLETION_MORE (1u << 0) /* HARVEST: the buffer was too small; the next HARVEST goes on */

/* A command is checked in this order, but for COUNT before ADDRESS. */
#define FLFPGA_OK                 0
#define FLFPGA_ERR_OPCODE         1 /* unknown */
#define FLFPGA_ERR_FLAGS          2 /* unknown flag or mode, or a reserved field is not 0 */
#define FLFPGA_ERR_CONTEXT        3 /* no such context */
#define FLFPGA_ERR_STATE          4 /* START of a started, STOP of a stopped, HARVEST of a never started context */
#define FLFPGA_ERR_ADDRESS        5 /* misaligned, not RAM, or not reached: bus mastering went off */
#define FLFPGA_ERR_COUNT          6 /* 0, or more than 65536 */
#define FLFPGA_ERR_NOT_REGISTERED 7
#define FLFPGA_ERR_NO_SPACE       8 /* too many contexts or ranges */
#define FLFPGA_ERR_HOST           9 /* the host could not do it; its log says why */

#endif
