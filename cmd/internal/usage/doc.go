// Package usage reads from outside what a VMM's process takes beside its guest: processor time and memory.
//
// Processor time is the clock of the whole process, in nanoseconds, also of threads that have ended. A vCPU's thread, which
// is one that the kernel has seen in a guest, is left out: a guest that spins takes all it gets, whatever the VMM does.
// What a vCPU's thread does for the VMM between two entries is left out with it.
//
// Memory is the peak of resident memory, and what of it is beyond the guest's. Guest RAM is what Fineline maps from memfds,
// and in QEMU the mapping that is at least as large as the guest. The guest's share is read at the end, because reading
// it holds up the process; guest RAM hardly shrinks, so the peak less that is the VMM's own peak.
//
// Rejected: getrusage of children (says nothing before they end, and knows no vCPUs), /proc/PID/stat (ticks of 10 ms, as
// long as some migrations).
package usage
