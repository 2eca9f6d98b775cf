// Package devices holds what every emulated device shares: the bus that routes
// a guest's port and MMIO accesses, the Device it routes them to, and the Line
// a device pulls to interrupt the guest. Each device is a package below.
//
// # The bus
//
// A device sees an offset in the range it claimed, never its address, so the
// same code serves a port and a BAR that the guest moves. Ranges never overlap:
// Insert refuses, because a priority between devices is a bug that shows years
// later. Where hardware does overlap (0xcf9 lies inside the PCI address port)
// the one device forwards to the other explicitly.
//
// vCPUs look up without a lock: the claims are a sorted slice behind an atomic
// pointer, replaced as a whole by Insert and Remove. Remove returns only when
// no access is inside the device any more, so that its owner may free what the
// device uses. Each claim therefore counts its accesses: two uncontended atomic
// additions, some 10 ns of an exit that costs a microsecond at least. Rejected:
// a reader-writer lock (its counter is one cache line shared by all vCPUs and
// all devices), and epochs by vCPU (the bus would have to know vCPUs).
//
// # Rules for devices
//
//   - A device does its own locking with one mutex named mu; Read and Write come
//     from any vCPU, State and Restore from the control thread.
//   - Line.Set and an MSI callback are called with mu held, so that two threads
//     cannot leave the level of the older one. They must not call back.
//   - A device must not Remove its own claim from inside its Read or Write: Remove
//     would wait for itself.
//   - Guest input is never fatal and never logged per access: an access that
//     hardware would ignore is ignored and counted in the device's Metrics.
//   - Registers are bytes. An access wider than a register reads or writes the
//     neighbours too, lowest offset first, as an 8-bit ISA device sees it.
//   - State returns a JSON-able value; Restore takes one from a file or a peer,
//     checks every bound before it changes anything, and is done after the
//     interrupt controllers are restored, because it drives lines.
package devices
