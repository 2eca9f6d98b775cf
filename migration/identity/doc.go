// Package identity names a process so exactly that its death can be proved.
//
// A lost connection proves nothing: the peer may be alive behind a broken network. But on one host the
// kernel knows. A process is named by the boot it belongs to, its PID namespace, its PID and its start
// time; a pidfd opened while it lives becomes readable when it has ended, whatever number is reused
// afterwards, and only when its last thread has gone, so no vCPU thread can still be in the guest.
//
// Two namespaces are part of the name. A PID means nothing in another PID namespace. A time namespace
// shifts both CLOCK_MONOTONIC and the start time that /proc shows, so across time namespaces a living
// process could be taken for a reused number; no proof is offered there.
//
// Invariant: Watch never says dead of a process that may be alive. When in doubt it returns
// ErrUnprovable and the caller must ask a human.
package identity
