// Package dma gives pages of the process's own memory whose physical address stays put, for a device to
// read and write.
//
// # Why io_uring
//
// mlock keeps a page in memory, not in its place: compaction, NUMA balancing and memory hot-unplug still
// migrate it, and a device that writes to the old frame then writes into somebody else's memory. What the
// kernel itself uses for DMA to user memory is a long-term pin (Documentation/core-api/pin_user_pages.rst,
// FOLL_LONGTERM): the raised reference count makes each migration fail. The one plain system call that
// takes such pins is IORING_REGISTER_BUFFERS. No request is ever put into the ring; it lives only for its
// pins, which the kernel drops when the descriptor closes, also when the process is killed.
//
// The order is pin, then read the physical addresses from /proc/self/pagemap: read before, they could be
// those of a page that moves in between. The memory is not inherited by forks, which would have to copy it.
//
// Where io_uring is off (kernel.io_uring_disabled, seccomp, a kernel built without it) a huge page of
// hugetlbfs serves if one is reserved: compaction leaves hugetlb pages alone, and only an administrator's
// own act moves one (memory hot-unplug, move_pages, numactl). Without both, Alloc refuses.
//
// # Rejected
//
//   - mlock, and looking around each command whether the addresses are still right: the device writes its
//     completion after the look. A rare corruption of foreign memory is not a fallback.
//   - VFIO: it pins and translates, but needs an IOMMU in the guest or its unsafe mode, and a module.
//
// # The owner's death
//
// Pins end with the process. If it is killed while the device works on a command, the device may
// still write to a page that has been given away; without an IOMMU no user-space driver can exclude this.
// A command takes microseconds to milliseconds. Whoever ends in order resets the device first.
package dma
