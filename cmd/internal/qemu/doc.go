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
// The bytes of the downtime are counted in a run of its own that is held at the switch-over (capability
// pause-before-switchover), when the guest has stopped and nothing of the rest is sent: what version 7.2 reports
// as downtime-bytes leaves out the channels of multifd.
//
// In post-copy the span is the same, and what comes after RESUME is timed until the source has completed. Version 7.2
// reports the number of requested pages, and how long all vCPUs stood still, in milliseconds, but no latency. That is
// taken from its trace, in the run that counts: from the fault thread's request to the page's placing.
//
// # Settings
//
// Setting names the ways to migrate that are worth measuring. XBZRLE sends a page as its difference from what was
// sent before, if that is still in its cache; so it begins to save in the third pass. A migration that would
// stop after the second never gets there; therefore it is held to some passes first, by a downtime limit of 1 ms
// and a first pass at limited speed, and its total time is longer for it. The held one is a setting of its own: it is in effect given
// another downtime limit than its rivals, and while it is held its passes become ever shorter, if a difference is found faster than
// the guest writes. Both a cache that holds the hot set (at least the 64 MiB of QEMU's default) and one that cannot are settings.
//
// Rejected: a QMP library (this is one small file), and HMP (made for people to read).
package qemu
