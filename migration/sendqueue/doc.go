// Package sendqueue tells a slow link from a silent peer.
//
// A write has ended when the kernel holds its bytes. It may hold megabytes, for which a link of 1 Mbit/s takes longer than a
// peer may be silent: who waits a fixed time for the answer then gives up a link that moves all the time. So does
// a write that waits for room, since the kernel says that there is some only when a third of a TCP queue has left, and three quarters of a Unix
// socket's. The queue itself shows whether anything moves, and Follow looks at it.
//
// What a relay on the way holds (a tunnel, a proxy) has left the queue, and nobody here sees it move. What is in the peer's own kernel
// counts as taken: a peer that has stopped is noticed when that has no more room, or all has left, and then the timeout.
//
// Rejected: a small send buffer (SO_SNDBUF ends the kernel's own tuning, and costs a fast link its speed);
// TCP_USER_TIMEOUT and keepalive (they tell a dead link, not a peer that takes nothing, and Unix sockets have neither).
package sendqueue
