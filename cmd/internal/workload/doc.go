// Package workload drives builtin:dirty, the guest whose every store can be checked, from
// outside: what it is told to write, and the conversation on its serial port. The demo and
// the benchmarks use it with Fineline and with QEMU, so both carry the same load and both
// are judged by the guest's own check.
//
// The conversation goes over a Unix socket, since both VMMs can listen on one, and a guest
// that moves is asked again at the destination's socket. Lines of no interest are dropped:
// a guest is never held up by a reader that is busy elsewhere.
package workload
