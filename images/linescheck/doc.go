// Package linescheck knows what the guest `lines` does to its memory: which lines each step stores to, and what
// every byte of the region is after each round.
//
// The guest runs a program that is a function of seed, vCPU, step, region and kinds alone. Model is that program
// in Go, the twin of images/lines: program.go of program.c, apply.go of access.c and vector.c, but from what the
// instructions are documented to do, not from running them. So it judges both the tracker under test
// (which lines it reports) and the emulator below it (which bytes and loaded values it makes).
//
// # What two vCPUs may do
//
// A Model runs the steps of a round vCPU after vCPU, the guest runs them at the same time. The result is the same
// because each vCPU loads from and stores to bytes that no other stores to, and the counters, which all change,
// only know operations whose order does not matter and whose loaded values nobody keeps. Lines are shared: a
// vCPU's bytes begin and end within them. Rejected: racing stores to the same bytes, of which the outcome could
// only be checked against a set.
//
// # Stored and changed
//
// A line is stored to in a round if any step stored to any of its bytes, also the same bytes again; it is changed
// if its bytes at the end of the round are not those of the beginning. Changed lines are stored lines, and a tracker
// by difference reports the former, one by access the latter.
//
// A guest without AVX leaves those kinds out and says so in its header; so a model is made of Read's Options,
// not of a command line.
package linescheck
