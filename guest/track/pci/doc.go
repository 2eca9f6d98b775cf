// Package pci takes a PCI function from user space: it finds it in sysfs, switches it on and maps BAR 0.
//
// # Why sysfs and not a kernel module or VFIO
//
// The point is stock Linux: /sys/bus/pci is in every kernel with PCI, needs root and nothing else.
// Its limits are honest ones: no interrupts (completions are polled), no IOMMU set-up
// (device addresses are physical addresses), and a kernel in lockdown refuses the mapping.
//
// Opening takes a lock (flock) on the function's resource0, so that two processes that use this package do
// not program the device at the same time; the kernel drops it when the owner dies.
//
// # Stores to registers
//
// A register is stored to by one plain MOV of its size. sync/atomic's Store is an XCHG on x86, which
// a hypervisor that emulates the access first reads the register for, and logs as odd. The
// mapping is uncached and x86 keeps stores in order, so what was stored to memory before is
// visible when the device sees the register's store.
package pci
