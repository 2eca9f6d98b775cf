// Package bench measures Fineline beside a peer or a physical limit in the same run, and
// reports medians and ranges. Its JSON is what scripts read: fields are added, never changed.
//
// Machines differ and are noisy, so runs of ours and of the peer alternate, what counts is
// their ratio, and no test asserts a time. The peer gets its best configuration (QEMU's
// microvm with everything off that the guest does not use; no bandwidth limit), the same
// guest file, memory, load and kind of link; where it also has a usual configuration, that
// is a row of its own. Of several settings of the peer the best is marked in each figure, and the
// best and worst of all scenarios are told beside each other.
//
//   - boot: from exec to the guest's first byte, and what an idle VMM keeps in memory
//     beyond guest RAM.
//   - exits: a port and an MMIO exit, timed by the guest, beside a loop that does nothing but
//     KVM_RUN. The guest measures itself, so the host's scheduler adds outliers, never an offset.
//   - track: builtin:dirty writes a share of a guest's pages over and over; its speed with its lines tracked
//     beside its speed with KVM's page log collected as often, in turns in one machine.
//   - migrate: builtin:dirty between two processes over a Unix socket or one limited link, under loads from one
//     line a page to every byte, beside each of QEMU's settings. At both ends the guest checks its memory; a
//     benchmark with a wrong line fails, whoever lost it. Also what both take: processor time and memory.
//   - postcopy: passes over a working set, moved destination first, beside QEMU's and beside a bare userfaultfd copy.
//     With a source that is kept, also the guest's speed beside its checkpoints and without them.
//   - diff: the kernels of package diff on one core, beside bytes.Equal and copy of the same
//     buffers, in CPU time. Rates count bytes read, for gather and scatter bytes copied, on both
//     sides alike.
//     Sizes stand for caches: a page and its twin twice for the first, 64 times for the second,
//     and far more than any third holds for memory. It needs no KVM.
package bench
