// Package pci is the PCI root of a machine: bus 0 with a host bridge at slot 0,
// and what a device needs to be a function on it.
//
// # Configuration
//
// The guest reaches configuration space by mechanism #1 (ports 0xcf8 and 0xcfc, PCI
// Local Bus 3.0 §3.2.2.3.2) and by ECAM (PCI Express 3.0 §7.2.2); both end in the
// same two methods of Function, so they cannot disagree. Buses, slots and functions
// that do not exist read all ones and ignore writes, which is how guests find out.
// A function is function 0 of its slot. There is no bridge, so there is no bus 1.
//
// A byte access to port 0xcf9 is the chipset's reset register in the middle of the
// address port. The bus refuses overlaps, so Ports takes that device and forwards.
//
// # A function
//
// Config is a type 0 configuration space to embed: identity, BARs, capabilities and
// MSI-X. A register is bytes and a mask of the bits that a guest may write; sizing a
// BAR needs nothing more. Whenever the command register or a BAR changes, the
// mapper moves the BAR's device on the MMIO or port bus. An address of zero, or
// one that reaches the end of the address space, as sizing writes it, is not mapped.
// A BAR that the guest puts over another device is not mapped either, is counted, and
// is tried again whenever something moves away; so functions restore in any order.
//
// Interrupts are MSI-X only: INTx would need routing tables in the firmware, and
// every guest that has PCI Express has MSI-X. A message that cannot be sent now
// (vector or function masked, bus master off) stays pending and is sent when it can;
// one raised while MSI-X is off is dropped and counted.
//
// # Locks
//
// mapper.mu > Config.mu > MSIX.mu. The mapper waits for accesses inside a BAR's
// device without holding Config.mu, so a BAR's device may read its Config. A BAR's
// device must not write a Config: it would wait for itself.
package pci
