// Package qemu runs QEMU as the peer of a benchmark: the same guest on the same KVM.
//
// Monitor speaks QMP: JSON objects, one a line; first QEMU's greeting, then our commands,
// each with one answer, and events at any time, also between a command and its answer.
// A goroutine reads, so that a wait can end while the connection stays in step.
//
// The machine is microvm with everything off that the tiny guests do not use, because it is
// QEMU's fastest: on software KVM it reaches the guest in a sixtieth of the time that the
// firmware of machine pc takes. It also has the smallest state to migrate.
//
// # A migration's figures
//
// Downtime is from QEMU's event STOP at the source, sent when the last vCPU has stopped, to
// RESUME at the destination, sent just before the first starts: the same span as ours
// (both carry microseconds of one host's clock). What the source itself reports ends when it
// has sent the last byte, so it leaves out the destination's part; it is kept beside.
// Version 7.2 does not report the bytes of the downtime. They are counted in a run of its
// own that is held at the switch-over (capability pause-before-switchover), when the guest
// has stopped and nothing of the rest is sent.
//
// Rejected: a QMP library (this is one small file), and HMP (made for people to read).
package qemu
