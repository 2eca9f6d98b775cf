// Package driver speaks with the device through its registers and rings (guest/include/fineline_fpga.h).
//
// Driver owns the rings, Context is one tracker in the device. Registers and DMA memory come from the
// caller, so that the same code runs over a PCI function and over the model of package tracktest.
//
// # One command at a time
//
// A lock is held from the doorbell to the completion. The device does commands in order anyway, one command
// carries 256 ranges or 128 records, and with one command in flight one page serves as
// list or buffer, a lost completion is one clear error, and nothing is left to sort by cookie. What it costs is
// one doorbell and one look for each page of ranges: microseconds against the device's work.
//
// # Waiting
//
// Without a kernel module there is no interrupt. The completion ring is in ordinary memory, so a look costs
// nothing: a thousand looks first, then naps, shorter than a millisecond. Every nap also reads STATUS. A
// device that stays silent for the deadline is given up: every later command fails with ErrDead, and
// Close resets it. An answer that is not for our command is the same.
//
// The completion's sequence is loaded first (acquire) and the rest after it, as the device writes it last.
package driver
