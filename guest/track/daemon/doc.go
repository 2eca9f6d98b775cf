// Package daemon shares the device between programs: one process owns the rings, and programs ask it over a
// unix socket (package protocol).
//
// # Who may do what
//
// The kernel says who connects (SO_PEERCRED). A program may track its own process, and in it only memory that it
// may write to: so it cannot watch memory that it shares read-only with others, such as a library's. Root
// may track any process and list all sessions; to others a list and another process are refused, and a session
// belongs to the connection that opened it. So what root tracks without a program's asking is read by root alone.
//
// # One process, not one number
//
// A process number may be another process's by the time it is used, and a process may become another program.
// Open of a program's own session therefore opens /proc/PID first, which binds to one address space for
// good, and then checks that the process that connected is still alive, by its pidfd (SO_PEERPIDFD, Linux
// 6.5; before that a pidfd opened at accept), and that /proc/PID still belongs to the user that connected. The kernel
// gives a set-user-ID program's, and any undumpable program's, /proc files to root: those are refused. An
// exec after the check leaves the session with an address space that has gone.
//
// Before 6.5 a number can be reused between connect and accept while a child holds the socket; what it could
// reach is another process of the same user, which the user may trace anyway.
//
// # Others' harm
//
// Each connection is served by its own goroutine, one request at a time. Bounded are: connections, a user's
// connections, sessions and bytes, a request's length and ranges, a part of a report, and the time that a client may take
// to accept an answer. When a connection ends for whatever reason its contexts are destroyed. A user cannot
// make the device refuse another's ranges before the bound of bytes, which is for all of the user's sessions together.
//
// # Rejected
//
//   - HTTP: requests here are one process's own, over one connection whose end is the signal to clean up.
//   - Passing the device's memory to clients: commands name physical addresses, so a client could read all.
//   - File permissions of the socket as the rule: they say who may ask, not whose memory.
package daemon
