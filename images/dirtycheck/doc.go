// Package dirtycheck finds lost and stale lines of the guest `dirty` from outside.
//
// It reads guest memory while the machine is paused, at any instruction. From the header it takes the parameters
// and from each vCPU's record only two numbers, the steps done and the step begun. Everything else is
// recomputed: the sequence of (line, value) of a vCPU is a pure function of seed, vCPU and step (sequence.go,
// the twin of images/dirty/abi.h).
//
// The replay runs backwards from the last step. The first time it meets a line is the last time that
// line was written, so it can end when every line was met: its cost depends on the number of lines
// (n·ln n steps for random, some log n times more for zipf), not on how long the guest ran. Rejected: replay
// from the first step (hours of guest time cost minutes), and trusting the guest's table of last steps (it is lost
// with the lines; here it is one more thing to check).
//
// A line whose store was in progress may hold old or new, byte by byte; that is at most one line a vCPU. Each
// other difference is a Mismatch. Since the value is a bijection of the step, a stale line is named
// together with the step it still holds, if at least 8 bytes a line are written.
//
// The header is guest memory and so not trusted: every number is checked, and nothing is allocated that is
// not backed by at least as much guest memory.
package dirtycheck
