// Package track answers which 64-byte lines of a guest's memory were written.
//
// # Engine and contexts
//
// An Engine belongs to one guest. Contexts are its consumers: each has ranges and a mode, sees every line
// for itself, and may overlap others: the guest's FPGA device, somebody who watches from
// outside, a migration. All that is expensive they share: one page log (memory.Tracker), one baseline
// a page, one set of slots.
//
// # Modes
//
// Diff: the page log says which pages were written; each is compared with its baseline, line by line
// (coherence/diff), and the compared bytes become the baseline in the same pass. A silent store, of the bytes
// that are there already, is clean. It costs the guest a write fault a page a round.
//
// Stores: the pages are read-only slots; loads are native, each store exits and is done by Access. Every
// store counts.
//
// Homed: the pages have no slot; each load and store exits and passes a model of the processors' caches with
// the device as the memory's home (package coherence). A written line stays pending in a cache until it is evicted
// or snooped; Harvest snoops, HarvestUnsnooped does not and misses it. Data is written through to RAM at once: the
// model moves permissions and events, so that who reads RAM needs no snoop.
//
// Stores and Homed are for plain data. A page that holds code, page tables, descriptors or stacks of exceptions is
// used by the processor and by KVM in ways that do not exit. What the processors use when such a mode is armed
// (Slots.Reserved) stays native from the start, and Blind gives pages back when KVM says that it cannot emulate an
// instruction there; both are then reported as a whole. While
// either mode is armed the vCPUs run one at a time (vmm/turns.go): KVM emulates a locked
// instruction as a load and a plain store, with an exit between.
//
// # What is never lost
//
// Invariant: who reads a line after Harvest has every write that no later Harvest reports. For Stores and
// Homed: Access and the accessors put the bytes in place first and note the line after; so does a store
// of the VMM, by memory.Guest.Observe. For Diff it rests on the page log's invariant (package memory): look collects, which
// re-arms, and compares after; a write between the two is compared now, and its page looked at again.
// But Diff sees values: its invariant is for the bytes that were compared, which are the baseline's. A line that is
// written after the harvest, read by the consumer and written back before the next harvest has not changed. So a consumer of Diff that
// copies lines either stops the writer for the copy or must copy first and compare the copy (design
// law 2), as a migration does with the kernels of coherence/diff themselves. Arm takes effect before
// it returns: the log is started, or the slots are changed, first.
//
// Baselines obey design law 2: they are the bytes that were compared, never read a second time. Two
// Diff contexts share them, so each comparison is told to both. Hashes are keyed with a secret that no guest learns:
// two lines collide with probability 2^-64, whatever the guest writes.
//
// # Memory
//
// Everything about pages is kept in chunks of 2 MiB of guest memory, made when the chunk is first tracked or
// written. Hashes cost 1/8 of the tracked memory, twins as much as it; a page that was never
// touched costs nothing, since its baseline is zeros and the hash of zeros is zero. Where
// the budget ends there is no baseline, and each written page is reported whole (Page.Inexact).
//
// # Save and restore
//
// State looks a last time, with the guest paused, and holds the ranges and what was found. Baselines do not
// travel. After a restore, Resume starts the page log before the guest runs and takes baselines while it
// runs: a page that is written before its baseline is safe is reported whole. So tracking adds no
// downtime of the size of memory.
//
// # Missing pages
//
// Pages may be missing (memory.Demand), most of all after a Resume at the destination of a migration. The engine waits for none. Such a
// page has no baseline; each look takes those of the pages that have arrived since, and one that was written before that
// is reported as a whole. An arrival is not reported. While pages are missing each look walks them.
//
// # Locks
//
// Engine.mu, then exact.mu. The first is held during comparisons and slot changes; vCPUs, and accessors of
// the VMM, only ever take the second. The function given to Harvest runs with the first held and may store to
// guest memory.
//
// # Rejected
//
// A baseline a context (memory and time for each), clean bits for lines that changed back between two harvests
// (the others' harvests would be lost), soft-dirty and write-protection of the VMM's own page tables (they
// see pages, too, and KVM's log is cheaper), twins in a file (one more copy to keep in step).
package track
