// Package fpga is the PCI function by which a guest uses line tracking: what would be a cache-coherent FPGA
// on its interconnect. docs/fpga.md is the guest's view and guest/include/fineline_fpga.h the ABI. This package is
// rings and registers only; what tracks is behind two small interfaces, Engine and Context.
//
// # Threads
//
// A register access touches fields under mu and at most wakes the worker, so a vCPU never waits for a
// command. One worker goroutine executes commands in order. Each command is one step, and a step needs the turn: a
// channel of capacity one. A pause takes the turn and keeps it. So saving, restoring, resetting and closing happen
// between two commands, and contexts are called by one goroutine at a time without a lock. A channel and not a
// mutex, because Pause gives up when its context ends; its waiters are served in order, so a busy worker
// cannot starve a pause.
//
// mu is never held while guest memory or the engine is used: a page of guest memory may have to be
// fetched first, and a vCPU would wait for mu. Nor does a step wait for a page: it asks for all that it needs before it takes the
// command, or stores the completion, and where some is missing it ends, to be tried again when that arrives. So a
// pause never waits for a page, and a device that waits for one is saved like any other. Lock order: ctl, turn, mu, then pci.Config's. WriteConfig takes no
// mu, because the mapper waits there for accesses inside the BAR.
//
// # Resets
//
// CONTROL's ENABLE going to 0 is the guest's reset, and its write returns at once. It counts the epoch up,
// zeroes indices and error, and moves the contexts to a list that the worker closes before anything else. A command
// that runs belongs to the old epoch: before each transfer of at most 4096 bytes it asks whether the
// epoch is still its own, and what it has to say is dropped. So one transfer may still be under way when the write
// returns. STATUS keeps ENABLED until that and all old contexts are gone, as NVMe's CSTS.RDY does (NVM Express 1.4,
// 3.1.6): a guest waits for it before it gives the memory to others. ENABLE may be set again without waiting: the new
// rings are then served after the old epoch's end. Rejected: store under mu, which would make the write of
// ENABLE final, and every vCPU wait for guest memory.
//
// Without bus mastering a function may not touch memory (PCI Local Bus 3.0, 6.2.2). Commands then wait in their ring,
// and a finished command holds its completion. A command whose list or buffer is transferred at that moment
// ends with ERR_ADDRESS, as a master abort would end it: what a harvest had not stored is lost.
//
// # Indices
//
// Both indices that the guest writes only move forward, by at most what the ring holds; anything else is
// STATUS_ERROR, because a count that cannot be right means that the guest and the device disagree about all of the ring.
// That CPL_TAKEN cannot go back is also what makes a completion's room, seen before the command is taken, still there
// at its end. A completion is in memory before CPL_PUT counts it, and a fast guest may write CPL_TAKEN in between; that
// is admitted.
//
// # Saved state
//
// State is taken of a paused device: no command is half done, at most one completion is held. It is registers,
// configuration space, and for each context what the engine says. The device's part is below 8 KiB; the engine bounds the
// rest by its limits on ranges and on what may be pending, so that a machine stays below vmm.MaxSavedBytes. Commands that
// were not taken are in guest memory and are taken at the destination.
package fpga
