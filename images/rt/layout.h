/* Numbers that assembly and C share. */
#ifndef RT_LAYOUT_H
#define RT_LAYOUT_H

#define MAX_VCPUS 64
#define STACK_BYTES 4096

#define TRAMPOLINE 0x8000 /* page of the vCPUs' first real-mode code: below 1 MiB, or SIPI cannot name it */
#define AP_NEXT (TRAMPOLINE + 0xff8)  /* index the next vCPU to come takes */
#define AP_LIMIT (TRAMPOLINE + 0xffc) /* how many are wanted */
#define LAPIC 0xfee00000

#define SEL_CODE32 0x08
#define SEL_CODE64 0x10
#define SEL_DATA 0x18
#define SEL_USER_DATA 0x2b
#define SEL_USER_CODE 0x33
#define SEL_TSS 0x40 /* plus 16 for each vCPU */

#define PTE_TABLE 0x27 /* present, writable, user, accessed */
#define PTE_RAM 0xe7   /* and dirty, 2 MiB page */
#define PTE_MMIO 0xff  /* and uncached */

#define COM1 0x3f8

#endif
