// Package memory is the RAM of a virtual machine: guest-physical addresses, the
// regions behind them, access by the VMM, and the collection of dirty pages.
// It knows no device and no hypervisor call; only it maps guest memory.
//
// # Two mappings of one memfd
//
// Each region is a memfd, mapped twice. The guest mapping goes to the
// hypervisor's memory slots. The VMM's mapping serves every accessor of this
// package. They are two so that a missing page can be given to userfaultfd in
// the first, where only a vCPU inside KVM_RUN faults on it, while the VMM fills
// the page through the second, which never blocks a Go thread (design law 4).
// A memfd and not anonymous memory, because anonymous memory cannot be mapped
// twice, punched with one call for both mappings, or asked for its holes. The
// memfds are closed on exec and their size is sealed, so that no later holder
// of the descriptor can make an access end in SIGBUS.
//
// Pages become resident when they are touched; New costs the same for 1 MiB
// and for 1 TiB, apart from one bit of dirty map a page, which the Go heap does
// not touch either. New refuses more RAM than the host has in all, since that can
// only end in the kernel's OOM killer; it does not compare with what is free,
// which changes and which overcommit is meant to exceed. With
// vm.overcommit_memory=2 and no memory left, a touch raises SIGBUS: hosts that
// want that policy use huge pages, which are reserved in New.
//
// # Lent files
//
// LendFiles and NewFromFiles hand RAM from process to process without a copy: both map the same memfds. The
// packages above see to it that only one of the two processes stores at a time. Seals are what makes a
// descriptor from elsewhere safe to map: a file that could shrink would turn an access into SIGBUS, the end of
// the process. Rejected: taking what sealing lacks here, on arrival, since a peer may shrink the file between
// the seal that fails and the one that holds; and /proc/PID/fd, which needs the rights to trace the owner.
// Whoever holds a descriptor may punch holes: the guest's memory is then zero there, and with pool memory
// a touch may fail when others have taken the page. Files are taken from whom the memory is taken from anyway.
//
// # Access
//
// Addresses are typed (GPA) and no method returns a reference to guest memory
// (design law 7): ReadAt and WriteAt copy, the Load and Store methods move one
// word, ViewPage lends one page to a callback. Every address passes one range
// check at its use, and a wrong one is an error, never a panic: it is the guest's
// or a peer's input (law 5).
//
// The guest writes while we read, so all of RAM is volatile. Bulk copies are
// plain copies: their bytes may be of different times, and who needs a unit
// uses a Load or Store. Those are single accesses: sync/atomic for 32 and 64
// bits; for 8 and 16 bits, which it lacks, see word_unsafe.go. The race detector
// does not watch memory outside the Go heap, so it stays silent about races
// with the guest, which are normal, and about races of two devices on the same
// guest bytes, which are the guest's business. Loads through the mapping of a
// page that was never touched make it resident; bulk work asks DataPages first.
//
// # Dirty pages
//
// A hypervisor's log does not see the stores of the VMM itself: loaders,
// virtio, the devices (law 3). Every store of the accessors is therefore
// marked in a map of our own, and a Tracker joins the two. Invariant: a page
// copied after Collect (or Start) has returned contains every store that no
// later Collect reports.
//
// For stores of the guest the DirtySource promises it. For ours: an accessor
// first writes the bytes (B), then marks with a locked OR of the page's bit
// (M). Collect takes the bits of a word with a locked exchange (X); the caller
// copies (C) after it returned. M and X are locked operations on one word, so
// one is first.
//
//   - M before X: the first X after M returns the bit, so that Collect reports
//     the page. A locked operation waits until all earlier stores of its
//     processor are visible (Intel SDM vol. 3, "Loads and Stores Are Not Reordered
//     with Locked Instructions"; it drains string and non-temporal stores too), so B is visible before M, M before X, X
//     before C: the copy has the bytes.
//   - M after X: the bit stays, and the next Collect reports the page.
//
// Collect skips a word that it loads as zero: then M is after that load, the
// second case, or its bit was taken by an X before, the first. Start drops marks
// instead of reporting them; by the first case their bytes are in every
// copy made after Start. Reset marks after it has punched.
//
// What does not work: marking only before the bytes (mark, collect, copy, then
// the bytes: lost); marking only if the bit is not set yet, or only if a
// Tracker is active (a plain load may pass the bytes in the store buffer, so
// the bit can be collected and the page copied before they are visible).
// Marking twice, before and after, is correct and buys nothing. So the mark is
// unconditional; it costs one locked instruction a store.
//
// Several Trackers may be active at once. They share the source: what one takes is added to
// the pending set of each of the others under one lock, so the invariant holds for
// each. Who tracks lines also wants to know where in a page this process stored: the
// observer is called after M, so a line it notes too late for one harvest is in the next, and
// its bytes are in place by then (the first case above, with the observer's call for M).
//
// Where the guest stands still, CollectStill may take the place of a Collect: what the source is only
// looked at for stays in it, so the next Collect reports those pages again and re-arms them. Reported twice is
// safe; our own marks are moved as always.
//
// The law says nothing about a call that has not returned. Before the last
// Collect of a migration the caller stops the vCPUs and waits for the devices'
// accessor calls; otherwise a mark can follow the last Collect.
//
// # Close
//
// An access after Close returns ErrClosed, and one that races with Close must
// not fault, since a fault in Go code ends the process. A lock or a count of
// users would make all vCPU and device threads write one cache line at each access.
// Instead an accessor loads a flag, and Close, after setting it, frees the
// memory but leaves in place of the VMM's mapping one of an empty memfd: who
// passed the check before reads zeros or writes into nothing. Each accessor
// keeps the Guest alive to its end (runtime.KeepAlive), and a cleanup of the
// garbage collector removes this last mapping when the Guest is unreachable,
// hence when no access is under way. The price is address space, and no
// memory, until that collection. Descriptors have no such trick, a reused number would be
// another file; the rare calls that use them hold a lock.
//
// # Huge pages
//
// Options.HugePages takes pages of 2 MiB from the host's pool if it can
// satisfy the whole guest, else asks for transparent ones. Pool memory has no
// SEEK_HOLE, so DataPages reports all of it.
package memory
