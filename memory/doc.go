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
// # Missing pages
//
// The destination of a post-copy migration runs a guest whose memory is elsewhere. Demand makes pages missing, and has them
// brought one by one. The guest mapping is registered with userfaultfd, for missing and for minor faults, where a page is
// absent; a vCPU that touches one waits in the kernel, within KVM_RUN. Fill writes through the VMM's mapping, where nothing
// waits, and maps the page for the guest (UFFDIO_CONTINUE). UFFDIO_COPY cannot do it: what an absent page holds already, of
// an earlier round, is what Fill builds upon. An accessor never touches an absent page: it loads one pointer, finds a Demand, and waits on a
// channel (design law 4). Without a Demand that load is all it costs.
//
// The kernel knows registered ranges (pieces of 2 MiB that have an absent page) and mapped pages, not what is absent. So it
// also reports the first use of pages beside absent ones; these are mapped at once, with what there is around them. Holes are
// made zeros in groups of 16, so that a guest that needs one page does not get 512.
//
// Invariant: hidden is clear only where the guest may see the page; it is cleared after the page is mapped. Who begins to wait
// sets wanted, then looks at hidden; who shows a page clears hidden, then looks at wanted. Both are locked operations, so one of
// the two sees the other, and nobody waits for a page that has come. A page never becomes absent again, except in another Demand.
//
// Arrival is not a store: Fill marks nothing, tells no observer, and KVM's log does not see it. That is right for every Tracker,
// because nobody can have copied the page before: a copy waits, or is refused (TryViewPage). DataPages has all that is hidden. So
// a Tracker started while pages are missing reports stores only, and a baseline of a page is taken once it is there
// (coherence/track). EditPage is a store: it is for a receiver that writes into memory that is present.
//
// Hold is for a pause. A vCPU that waits in the kernel can be interrupted if KVM is fetching the page for the guest (Linux 6.2
// and newer), and never if the kernel itself accesses guest memory for it (page tables on shadow paging, the emulator). So a pause holds
// arrivals back from who waits, which makes waiting as good as being parked: Waits says of which thread that is so. The userfaultfd is read and
// the thread noted under one lock, so that Returned, called when a signal has got a thread out of KVM_RUN, leaves no note behind.
//
// Who has pages arrive in parts, and serves accesses to a part itself (coherence/homed), keeps the parts in the absent page
// (Lend) and makes it present by a Fill that leaves them alone. Waiting for a part (AwaitPart) is to a pause what waiting for a page is.
//
// Where a Demand ends with pages missing, the guest mapping is made inaccessible before who waits is woken: no instruction sees wrong
// memory, KVM_RUN fails with EFAULT, or the guest dies of an exception that it has no memory to handle. Accessors get ErrMissing.
// Reset ends the need for all that is missing.
//
// Faults are read by a goroutine that waits in the kernel (userfaults.faults says why). Measured beside it: one locked thread for the
// userfaultfd and the connection together. It was no better at the median (31 to 37 against 32 to 42 µs for a page from another process
// over a Unix socket), and forbids TLS.
//
// Next is for who asks. Tell is for who is in a hurry: the goroutine that has read a fault calls it, so that between the two no other
// goroutine is woken. Mapping is a system call a page, so FillRun maps up to 16 in a row by one. A page of a run is absent no more as
// soon as its content is there, and hidden until the run is mapped, unless somebody waits for it: then it is shown alone, by who begins to
// wait or by who fills, whichever sees the other (as with hidden and wanted above, here it is absent and wanted). A run
// that made all its pages present at its end cost a guest that follows it closely a miss in each, up to the time of a run.
//
// Rejected: huge pages of the pool (they can only be mapped whole, 2 MiB each fault), UFFD_USER_MODE_ONLY (KVM faults in the
// kernel), registering all of RAM (first uses of untouched memory would all be reported), a timeout to tell who waits.
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
