// Package homed brings the memory of a guest that runs already by the line: an access to memory that is elsewhere
// is a miss at the emulated device, which is the home of all lines, and goes on when its line has come, while the rest of the
// page follows (US11231949). It is the reference beside package memory's Demand, which brings pages: slow, exact, for research and
// small guests.
//
// # Who does what
//
// The pages of a Demand have no KVM slot, so each access of the guest exits and comes to Memory.Access as that of one line.
// The device's core (coherence.System.Expect) decides: it performs the access, or has the line fetched. NextLine says
// which, FillLine brings it, and Fill the page, asked for or not. Memory is the shell around the core: it has the bytes, the
// waiting and the lock.
//
// The bytes of an absent page are in the page itself, through the mapping of this process (Demand.Lend); the mask of the lines
// that are there is the core's. When the last line has come the page is made present (Demand.Fill), and is the Demand's
// concern as any other: accesses to it pass this package by, and it may get its slot back.
//
// Everything else that touches memory waits for whole pages, in the Demand below: the VMM's devices, the processors' own use of page
// tables and descriptors, code, and what KVM cannot emulate. Those pages have a slot, and userfaultfd finds them. A page of which some lines are here and were
// written is asked for whole like any other, and Fill leaves these lines alone.
//
// # Invariants
//
// A line is taken once. Fill has the page decoded into a copy and puts into memory the lines that the core takes, so
// that neither a late page nor a second copy of a line touches what the guest has written. Bytes are in place before the core's
// effects are acted upon: whoever is let go finds them.
//
// An access does its bytes after the core has performed it, without the lock: its line is here from then on, so nothing that
// arrives touches it. Two accesses to one line at a time are the caller's to order: it runs the vCPUs in turns, as for
// all memory whose accesses exit.
//
// A vCPU that waits counts as one that waits for a page of the Demand (Demand.AwaitPart): a pause need not wait for it, and
// it stays waiting until the guest goes on.
//
// Locks: those of the Demand, then Memory.mu. Nothing is asked of the Demand with mu held.
//
// # What it costs
//
// Each access to an absent page, a hit as well, is an exit (30 µs on software KVM) and a copy under a lock; a miss brings 92
// bytes before the vCPU goes on where the page has 4 KiB. On a link that moves a page in less than two wake-ups of a thread that is
// no gain: it is one where the link is slow, and the measure of what a device on the interconnect would gain.
//
// # Rejected
//
// Lines in a buffer of our own until the page is complete (a copy more, and two places where a byte may be). Waiting in
// KVM for lines (userfaultfd knows pages only). Lines for devices too: one access of a device is mostly more than a line, and
// a page at a time is then faster. A model of the caches for pages that have come: nobody asks it anything.
package homed
