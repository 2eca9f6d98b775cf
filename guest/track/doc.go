// Package track tells a program on stock Linux which 64-byte lines of its memory were written, by
// Fineline's FPGA device (guest/include/fineline_fpga.h). It needs no kernel module.
//
//	system, err := track.Dial(track.DefaultSocket) // or track.Open() as root, without the daemon
//	session, err := system.Self(track.Options{})
//	err = session.Add(track.RangeOf(memory))       // locks and lists virtual pages
//	err = session.Start()
//	report, err := session.Harvest()               // the lines written since Start
//
// # Layers
//
//	track          System and Session: by the device itself (Device) or by the daemon (Client)
//	track/daemon   the process that owns the device and shares it; track/protocol is between it and Client
//	track/follow   virtual pages to frames, and what happens when pages move: the order that loses nothing
//	track/procmem  /proc/PID/maps and pagemap
//	track/driver   the device's rings; over track/pci (registers) and track/dma (pinned memory)
//	track/abi      the header's numbers
//
// # Who may track what
//
// Physical addresses are root's to see. Open therefore needs root (CAP_SYS_ADMIN and write access to the
// function's files in sysfs). Everybody else goes through the daemon, which looks at their own process only.
// A session that root opens on some process is seen by root alone, and the process need not know of it.
//
// # Memory
//
// Add of a Self session locks the pages (mlock), so that they are neither absent nor swapped out; RLIMIT_MEMLOCK
// holds. Locks of a page do not add up: Remove and Close unlock pages that the program may have locked itself.
// Locked pages can still change their frame, which is reported as a moved page.
// Ranges are widened to whole pages, and lines of those pages beside the range are reported, too: memory of
// its own mapping is best. Only memory that the process may write to can be added.
//
// Nothing keeps the memory alive: a range is an address. What is freed and used for other things is
// reported as those things are written.
//
// # What a report means
//
// Package follow has the promise and its argument. In mode Diff a line is reported when its bytes differ between two
// harvests, so a program that copies reported lines must not write between the call of Harvest and the end of
// its copy, and writes of the same bytes are not seen. In modes Stores and Homed both are.
//
// A page that is Gone is nowhere: its content is zeros if the memory is private, and must not be read for a copy.
// Locked memory has no such pages.
//
// # Close
//
// Close of a session takes its ranges from the device, on each path; when the connection to the daemon or
// the process ends, the daemon does. Device.Close resets the device. After an error of the device a session says
// the same error again until it is closed: what the device knows is then not known.
//
// Sessions, Device and Client are for any number of goroutines; calls on one session wait for each other.
package track
