// Package diff compares pages by the line. A page is 4096 bytes, a line 64, and the changes of a
// page are a mask, a uint64 in which bit i stands for line i. The package knows no guest, no file
// and no socket; it works on bytes that the caller lends for the call, at any alignment.
//
// # Baselines
//
// A page changes while it is compared: guests run. What the reader believes to have sent must be
// what it compared (design law 2). So Mask and a later copy are of use only on memory that stands
// still; for guest memory there are two kinds of baseline, each kept up to date by the call that
// compares:
//
//   - A twin, a copy of the page. Update loads a byte of page once, compares it in a register
//     with the twin and stores the same register to the twin. Afterwards a bit that is not set
//     says that the twin already had what was read, and the lines of a mask are taken from the
//     twin (Gather), never from the page. Bytes of one line may be of different times, like those
//     of any copy; a store that came too late sets the page's dirty bit again.
//   - Sums, a keyed 64-bit hash a line, an eighth of the memory. UpdateHash hashes a line once,
//     compares with the stored sum and stores the new one. There is no copy to send from: the
//     caller copies the page first and hashes the copy.
//
// Twins and sums belong to one caller at a time. The kernels never touch a byte outside the page,
// and write to a baseline only near what has changed: new sums of a page of zeros, and a twin of
// zeros that was never written, stay unallocated.
//
// No kernel may run on a page that is registered with userfaultfd and missing (law 4): nothing
// can preempt assembly that waits for a page.
//
// # The hash
//
// A line is eight words w, a key eight random words k, and the sum is w0·k0 + ... + w7·k7 in
// GF(2^64), the polynomials over GF(2) modulo x^64 + x^4 + x^3 + x + 1: the multilinear hash of
// Carter and Wegman, "Universal Classes of Hash Functions" (1979); in this field Lemire and
// Kaser, "Faster 64-bit universal hashing using carry-less multiplications" (2016). Two lines
// that differ in word j collide if the sum of (wi+w'i)·ki is 0. Whatever the other key words are,
// just one kj solves that. So a changed line is missed with a probability of 2^-64 exactly, if
// the key is uniformly random and independent of the lines.
//
// Independence is the catch. The sum of a line with a single word 1 is a word of the key, and who
// knows the key makes lines that collide. So the key is from the system's random source, made
// anew by each who keeps baselines, and neither it nor a sum leaves the process. A guest that
// could watch whether a change was missed learns from one that was seen only that one key in 2^64
// is ruled out; q changes are all seen but with a probability of about q/2^64.
//
// It is linear, so that a line of zeros has the sum 0 and memory that was never touched needs no
// baseline, and so that the sum of a change can be added to a sum. Reductions are once a line.
//
// Rejected: the pseudo-dot product (w0+k0)·(w1+k1) + ... needs half the products for the same
// bound, and with the sum of zeros added even keeps that 0. But it is not linear, Go code cannot
// do it by tables since both factors vary, and with AVX-512 memory is the limit anyway. CRC-32C
// and xxHash have no secret, or no proof. A longer polynomial hash (GHASH) needs one key word,
// but its bound grows with the length, and its products wait for each other. SHA-256 needs no
// secret and is far slower.
//
// # Kernels
//
// There are three sets: AVX-512, AVX2, and Go for the rest, which also says what the others must
// do. The best that processor and system allow is taken once, at the start; Level names it.
// AVX-512 wants VPCLMULQDQ, which only processors have whose clock hardly falls with 512-bit
// integer instructions (Ice Lake, Zen 4 and later); older ones take AVX2. Hence no second choice
// by size: even Gather of one line uses the widest register. GODEBUG=cpu.avx512f=off or
// cpu.avx2=off switches a set off.
//
// The assembly is written by the generator in asm, a module of its own that uses avo, and is
// committed; make generate writes it, make lint checks that it is current.
//
// What was learned with go test -bench . and fineline bench diff on a Zen 4 (L1 of 32 KiB, L2
// of 1 MiB):
//
//   - One core compares 180 GB/s in the first cache, two loads of 32 bytes a cycle, 110 in the
//     second and 25 to 29 from memory, each 0.95 to 1 of what bytes.Equal reads. Wider registers
//     gain nothing there; on processors with loads of 64 bytes they would. They treble the hash:
//     33 GB/s beside 11.5, more than memory gives. Go alone makes 12 GB/s, and 1.2 of hash. The
//     zero check of AVX-512 is AVX2's, which was faster in the first cache (159 GB/s beside 114).
//   - The verdict on a line goes through CF into the mask (RCR), in four instructions a line.
//     Eight lines a turn of the loop are not faster than four.
//   - Update stores whole groups of four lines behind one branch a group. A branch a line costs
//     two times as much on pages half of whose lines have changed at random (580 ns a page beside
//     280: mispredictions), and as much on clean ones. Masked stores without a branch (AVX-512)
//     are best on changed pages (235 ns), but on pages that were never written each takes 160 ns,
//     though it stores nothing: 10 µs for a clean page instead of 60 ns. To store every line
//     always would write clean twins back to memory.
//   - Fetching ahead helps only if the next page lies elsewhere, since the processor sees a
//     sequence by itself: 370 ns instead of 550 a pair in random order, 340 instead of 270 in
//     sequence. It must be spread over the loop (in one burst it gains nothing) and go to the
//     second cache (PREFETCHT1): T0 and NTA are slower than none. Hence UpdateBatch and
//     UpdateHashBatch.
//   - Gather in assembly takes 25 ns for a random half of a page; Go code took 185 ns.
package diff
