// Package follow keeps a device, which tracks frames of physical memory, on the pages of a program, which
// the kernel moves between frames: compaction, NUMA balancing, huge pages, copy on write, swap.
//
// Follower has two views of each page: R, the state it last saw in the page table, whose frame is
// registered with the device; and the page table itself, which it can only sample. Page table and device
// are interfaces; there is no clock, no socket and no goroutine here.
//
// # The order of a harvest
//
//	H  harvest the device
//	P  read the page table; pages whose state is not R are "changed"
//	G  register the frames of changed pages
//	Q  read the entries of changed pages again; those that differ from what G registered go back to G
//	U  unregister frames that no page is in any more
//	   report: lines for unchanged pages, the whole page for changed ones
//
// # What is promised
//
// Who copies what a report names, after Harvest has returned, has each write that no later report
// names. A write is named by the harvest that begins after it; by the one after that if its page came
// back to an old frame while the harvest ran.
//
// # Why this order loses nothing
//
// Take a page v that P finds in frame f.
//
// R[v] = f: v was in f when the last harvest ended (Q or P saw it after f was registered) and is now.
// If it was there all the time, its writes are stores to f, and H has reported those before it; later ones wait
// for the next H. If it left f and came back, its content came back into f by stores (a copy of the kernel's,
// a read from swap), which the device sees like any others. Only the program itself can bring a page back
// without stores: by mremap of other memory to v's address and back. Between windows that changes nothing
// that is copied; a program that copies while it does so reads the other memory, and must not.
//
// R[v] != f: the writes between cannot be told apart, so the whole page is reported. G comes before the
// report, hence before the caller's copy: a write before G is in the copy, a write after G in the device. Q
// sees that v is in f now that f is registered, which is the first case's premise for the next harvest. If
// Q sees another frame, the page goes back to G; after a few rounds it is left unknown, and the
// next harvest reports it whole again.
//
// H before P: a page that moves between the two is changed for P, so nothing rests on what H said of a
// frame that was somebody else's by then. With P first, v can leave f after P; the new owner of f writes over
// the line that v had written; a device that compares values finds the old value there and H says
// nothing; and P had said that v is in place. The test "page table first" shows this loss.
//
// A frame that other pages have left and a changed page has come to is taken away and registered anew: what
// the device remembers of it is of the time when it was theirs. All pages concerned are reported whole. The
// simulation found this case. A frame that also has an unchanged page stays as it is, since its
// writes may be pending and its content is that page's.
//
// # Pages in no frame
//
// A page in swap has a state too (its swap entry): it is reported whole, as moved, when it goes there, since its
// last writes left with the frame, and when it comes back. A page that leaves the table altogether is
// reported once, as gone. Private memory is zeros then, and who copies takes zeros: a read could see the write
// that brings the page back after P, and the program could drop the page once more before the next P, which then
// sees no change. (The simulation found this, too.) What the kernel takes away and gives back within one
// window, in the same frame or swap slot, is not seen; memory of which each write counts is locked.
//
// # Devices that compare values
//
// In mode diff the device's view is a sequence of values, one a look. Two more conditions hold there, and they are
// the mode's and not this package's:
//
//   - The program does not write from the harvest's begin to the copy's end. Else: the device looks and sees a,
//     the program writes b, the copy reads b, the program writes a; the device sees a again and says nothing.
//   - No page that is out of its frame when H looks (or G registers) is back in the same frame when P (or
//     Q) reads. Else the device's view is a foreign value's, and a write of just that value is silent. It takes a frame
//     that is given up, filled by another, given up and chosen again for the same page out of all free
//     frames, the last step within the milliseconds of a harvest. Pinned pages (io_uring
//     buffers, see package dma) cannot move at all.
//
// Modes stores and homed need neither. For statistics neither matters.
//
// # Costs
//
// A window reads 8 bytes of pagemap a page and compares them with R: 2 KiB for each MiB tracked. Only
// changes allocate, sort or talk to the device; neighbouring frames are joined to one range.
//
// # Rejected
//
//   - Soft-dirty bits and userfaultfd write-protection: they see pages, and cost a fault for each.
//   - Registering pages and not frames: the device is on the memory's side and knows no page table.
//   - Lines of a changed page where they might be known: a window in which a page moves is rare, and whole is right.
package follow
