// Command memcheck runs inside Linux guests and finds memory or time that a
// pause, a snapshot or a migration has damaged.
//
// # What it checks
//
// It owns three areas of memory, looked at line by line (64 bytes):
//
//   - churn: every line holds a pattern made from its index and its generation.
//     Each round checks a line, then writes its next generation, so a line that
//     is lost, stale or of another place is found one round later, and named.
//   - still: written once, checked every round: pages that are sent once.
//   - zero: never written, checked every round: pages that may not be sent.
//
// One worker a CPU does rounds over its own stripe. Between blocks of lines it
// reads the clocks: CLOCK_MONOTONIC and CLOCK_REALTIME must never be behind
// what any worker on any CPU has read before.
//
// # What it prints and reads
//
// Lines on stdout, each numbered from 1 by seq without gaps, so that a host
// that moves the machine can also prove that no output is lost or doubled:
//
//	memcheck seq=N rounds=N errors=N uptime=S realtime=S maxgap_ms=N jobs=N
//	memcheck seq=N error TEXT
//	memcheck seq=N warnings=N
//	memcheck seq=N warning TEXT
//	memcheck seq=N unknown command TEXT
//
// rounds counts those that all workers have finished; uptime and realtime are
// seconds of CLOCK_MONOTONIC since start and of the epoch; maxgap_ms is the
// longest time between two clock readings of one worker: what the guest saw of
// a downtime; jobs counts the runs of -job, a shell command that must print the same each time, as a
// compression of known data does. The first line comes once the memory is ready, then one a second.
//
// Commands on stdin, one a line:
//
//	status       print the status line now
//	every D      print it every D (Go duration, 0s stops), default 1s
//	warnings     count and print kernel messages that tell of trouble
//	poweroff     power the machine off (ACPI S5)
//	reboot       restart it
//	quit         end
//
// The exit status is 1 if there were errors. `memcheck -warnings` only prints
// the warnings, for use from a shell.
package main
