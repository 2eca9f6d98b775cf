// Package barefault measures the shortest way from a missing page to a page: one thread touches it, another reads the fault
// from userfaultfd and copies a page in. There is no network, no protocol and no choice in it, so it is the limit that
// post-copy is held against. Memory is a shared mapping of a memfd, as a guest's is.
//
// The touch is a store inside a system call, as a vCPU's is inside KVM_RUN: Go code itself must never fault there, because the
// scheduler would not know that the thread is blocked (and userfaultfd must then be allowed to see faults of the kernel).
// Both sides are goroutines on threads of their own, and the collector is off meanwhile. What Go adds to the two system calls
// of a round is below a microsecond.
package barefault
