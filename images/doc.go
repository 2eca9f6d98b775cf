// Package images holds the tiny guests that are built into the binary, as `builtin:NAME`.
//
// # What they are
//
// Freestanding C and assembly, linked as PVH ELF files (64-bit ELF with the note XEN_ELFNOTE_PHYS32_ENTRY),
// each under 64 KiB. The same files boot in `qemu-system-x86_64 -kernel FILE -append "..."`, so each is
// also a test that can be run beside another VMM. They are committed as built; `make -C images` rebuilds
// them, and `make -C images check` builds them elsewhere and compares byte for byte.
//
// # Why they run at CPL 3
//
// KVM on a processor without VMX and SVM runs CPL 3 natively and emulates everything else at about one
// million instructions a second. So the linker lays out page tables, descriptors and TSS (rt/tables.S),
// rt/entry.S goes from the PVH entry to CPL 3 in about forty instructions, and all the rest, also page
// tables for memory above 1 GiB and waking the other vCPUs through the local APIC, is done at CPL 3.
// Three things this taught:
//
//   - IOPL 3 alone does not open the ports there. That KVM drops it from RFLAGS and looks at the I/O bitmap
//     of the TSS (with no TSS loaded it reads whatever lies at address 102, and works by luck).
//   - RFLAGS.IF reads as 1 at CPL 3, so both PICs are masked.
//   - HLT is not allowed at CPL 3: a guest ends by power-off (port 0x604) or isa-debug-exit (port 0xf4),
//     waits by PAUSE, and so always uses a whole host CPU for each vCPU.
//
// An exception prints one line, `fault vector=… error=… rip=… address=…`, and ends the guest with debug
// exit code 1, as `error: …` does. Rejected: a kernel of somebody else's (none is this small, and none
// works at CPL 3), and Go for the guest (no runtime without a system below it).
//
// # hello
//
// Sends the `H` before it does anything else, then the rest of
//
//	Hello from Fineline: 255 MiB of memory, cmdline "..."
//
// and powers off. Options: exit=V ends by debug exit with V; halt=spin never ends; loop=pio with count=, port=
// (0x80), or loop=mmio with count=, addr= (0xd0000000), reads that often between the lines `loop start` and
// `loop end count=N tsc=TICKS`, with no other exit. Other words are only shown.
//
// # dirty
//
// Writes lines of memory for ever, such that at any instant each byte's right value is known.
//
//	pages=4096     pages of the region          lines=4     lines written in each page, 1 to 64
//	bytes=64       bytes written of each line   pattern=    random (default), seq, zipf, stride or cluster
//	rate=100000    lines a second of each vCPU, 0 = as fast as it can
//	seed=1         vcpus=1                      steps=0     of each vCPU, then check and power off; 0 = for ever
//	base=          first address of the region; default: after the image. base=0x100000000 is above 4 GiB
//	tsc_khz=       default: measured by the PIT progress=1  a progress line each second
//	table=1        keep the table of last steps verify=1    check each line before writing it again (needs table)
//
// Numbers are decimal, or hexadecimal after 0x. An option it does not know ends it. It prints, once every
// vCPU writes, each second, and when asked:
//
//	dirty ready vcpus=1 pages=4096 lines=4 bytes=64 pattern=random rate=100000 seed=1 base=0x172000 tsc_khz=2596000
//	dirty steps=N mismatches=M
//	check steps=N mismatches=M [first line=ADDRESS vcpu=V step=S offset=O expected=X found=Y]
//
// A pass of seq, stride or cluster meets each line once: in order; every 16th, then those after them; or in scattered clusters
// of 64 neighbours, in each in an order that looks random. With lines=1 a line is a page, and the first pass
// after a move is what a post-copy has to guess.
//
// It reads commands from the serial port every 10 ms: `s` says how many steps, which costs next to nothing; `c` stops every vCPU between two steps, checks every line
// and goes on; `q` checks and powers off. M counts what the check found and what verify had found before; a
// `fault` line or another value than 0 means memory was lost. Each vCPU stops making up for missed steps after
// 10 ms, so that a pause is not followed by a burst.
//
// # What dirty leaves in memory
//
// dirty/abi.h is the exact text. At guest-physical 0x100000 stands a header; its magic "FLDIRTY1" is stored last.
// It gives all parameters and the address of an array with one 64-byte record a vCPU: next, done, the address of
// its table, the number of its lines, its mismatches. Written line k of page p has the number g = p·lines + k,
// stands in place (⌊k·64/lines⌋ + p) mod 64 of the page, and belongs to vCPU g mod vcpus as its line
// ⌊g / vcpus⌋. Which line step s of a vCPU writes, and what, depends on seed, vCPU and s alone. A step is
//
//	next = s;  the line;  table[line] = s;  done = s
//
// in this order, which x86 keeps. So in a paused machine next is done or done+1, and in the second case
// the line of step `next` and its table entry, and nothing else, may be old, new or half of each. Package
// dirtycheck recomputes the rest from the outside, and believes neither the table nor the guest's own check.
// With bytes=B below 8, a stale line is seen with probability 1 - 256^-B only.
//
// Stores the guest makes beside the lines: its record (one line a vCPU), its table (8 bytes a step; table=0 turns
// it off where a benchmark must know the number of dirty lines exactly), its stack.
//
// # lines
//
// Runs a random program of loads and stores over a region, of which it is known what it stores to, line by line.
// The oracle's guest: whatever reports lines, and whatever emulates accesses, is compared with package linescheck,
// which knows the program too.
//
//	pages=16       pages of the region, from 2; the last is of shared counters
//	steps=256      accesses of each vCPU in a round   vcpus=1   up to 8
//	kinds=scalar,string,sse,atomic,load               also avx (32 bytes, VEX), evex (64 bytes), atomic16 (cmpxchg16b)
//	rounds=0       so many rounds, then power off; 0 = each waits for a `g` on the serial port, and `q` powers off
//	seed=1         base=  first address of the region; default: after the image
//	track=         diff, stores or homed: the guest itself drives the tracker, see below
//	misuse=1       it provokes every error of the tracker
//
// Stores have 8 to 64 bits, 1 to 160 bytes in string operations (forwards, backwards, onto themselves), or a vector.
// Half of those that need no alignment lie across two lines, and some across two pages. One scalar store in five, and
// one vector store in six, stores what was there before. What loads and atomics on own bytes find is folded into a hash.
// Kinds can be chosen one by one, since what emulates them may know some and not others: KVM does not know avx,
// evex and atomic16. A kind the processor does not have is left out, and said. SSE and AVX are switched on at CPL 0
// (lines/cpl0.S): CR4 and XCR0 are out of reach at CPL 3. It prints
//
//	lines ready vcpus=1 pages=16 steps=256 kinds=scalar,string,sse,atomic,load seed=1 base=0x158000
//	lines round=N stored=L mismatches=M
//
// L is the number of lines stored to in the round. M is the number of counters that are not the sum of what the vCPUs
// did to them. Between two rounds, while it waits too, nothing stores to the region; records, orders and stacks are
// elsewhere. So whoever harvests or compares between the line of a round and the next `g` sees that round whole.
// lines/abi.h is the exact text of what it leaves in memory: at 0x100000 a header (magic "FLLINES1"), which has the
// number of rounds and the address of a 64-byte record for each vCPU: steps done, and the hash of what it loaded.
//
// With several vCPUs each has own bytes, in blocks of 352 that go round: five and a half lines, so that lines are
// shared and pages too, and still each byte is known. What is truly shared is the counters, and only by locked
// operations whose order does not matter. Rejected: racing stores, whose outcome is one of many.
//
// With track= the guest is a user of guest/c, the C library over the tracker's ABI: it registers the region,
// harvests after each round, compares with its own bitmap of stores (or, for diff, with a copy), and prints
//
//	track mode=diff round=N lines=L missing=0 extra=0 [inexact]
//	misuse NAME status=S expected=E [wrong]
//	misuse wrong=0
package images
