// Package relay is a link of limited speed that both VMMs of a benchmark are sent through: it listens on a Unix
// socket, connects each connection that comes to the destination's, and passes bytes on no faster than the link does.
//
// # The link
//
// Each direction is one wire, which all connections share: several streams get no more of it than one. A wire is
// described by the instant at which it will be free. A chunk of n bytes that comes at t leaves at max(t, free) + n/rate and
// arrives a delay later. This is exact however late a timer fires, as long as there is something to
// send: lateness never adds up, because the next chunk counts from free and not from now.
//
// In front of the wire is a queue of bounded bytes, as in a switch: whoever would make it longer waits, so his socket fills
// and his VMM meets the same back-pressure as on a real link. The queue is what a small request has to wait behind, so
// it is short: two milliseconds, as of a link with active queue management. What is on its way to one connection
// is bounded too, so a receiver that does not read stops its own connection and no other.
//
// The rate is of payload: 1 Gbit/s of it is a little more than what TCP gets from Gigabit Ethernet (some 941 Mbit/s).
//
// Connections are made in the order in which they come, one after the other: QEMU takes the first for its main channel.
//
// Rejected: traffic control of the kernel (needs root and modules, and does not know Unix sockets), a bucket with a burst
// (a burst is bytes for nothing: of a downtime of some milliseconds it would be all), losses (TCP would repair them).
package relay
