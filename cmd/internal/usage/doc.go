// Package usage reads from outside what a VMM's process takes beside its guest: processor time and memory.
//
// Processor time is the clock of the whole process, in nanoseconds, also of threads that have ended. A vCPU's thread, which
// is one that the kernel has seen in a guest, is left out: a guest that spins takes all it gets, whatever the VMM does.
// What a vCPU's thread does for the VMM between two entries is left out with it.
//
// Memory is the peak of resident memory, and what of it is beyond the guest's. Fineline's guests are in memfds, of which a
// process may map a page twice: then the kernel counts it twice, and we once. QEMU's are in the private mapping that is at least as
// large as the guest; to read it holds up the process, so that is done when nothing is measured. Guest RAM hardly
// shrinks, so the peak less the guest's share at the end is the VMM's own: at least so much, if its peak was earlier.
//
// Rejected: getrusage of children (says nothing before they end, and knows no vCPUs), /proc/PID/stat (ticks of 10 ms, as
// long as some migrations).
package usage
