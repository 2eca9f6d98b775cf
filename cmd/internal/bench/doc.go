// Package bench measures Fineline beside a peer or a physical limit in the same run, and
// reports medians and ranges. Its JSON is what scripts read: fields are added, never changed.
//
// Machines differ and are noisy, so runs of ours and of the peer alternate, what counts is
// their ratio, and no test asserts a time. The peer gets its best configuration (QEMU's
// microvm with everything off that the guest does not use; no bandwidth limit), the same
// guest file, memory, load and kind of link; where it also has a usual configuration, that
// is a row of its own.
//
//   - boot: from exec to the guest's first byte, and what an idle VMM keeps in memory
//     beyond guest RAM.
//   - exits: a port and an MMIO exit, timed by the guest, beside a loop that does nothing but
//     KVM_RUN. The guest measures itself, so the host's scheduler adds outliers, never an offset.
//   - migrate: builtin:dirty between two processes over a Unix socket, under loads from one
//     line a page to every byte. At both ends the guest checks its memory; a benchmark with
//     a wrong line fails, whoever lost it.
package bench
