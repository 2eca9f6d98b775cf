// Package matrix is tests alone: real machines migrate in every mode, with every pattern of writing and every
// setting, many times.
//
// # How a migration is judged
//
// The guest is builtin:dirty, whose right memory is known at any instant. After each migration the machine
// is paused and package dirtycheck replays what must be in it; the guest's own checks (before each store, and of
// everything when asked) are counted, too. Both see only what the guest writes. So where nothing runs in
// between the source's memory is compared with the destination's as well, all of it: at the end of pre-copy
// before the guest goes on, and after a post-copy in which the guest was held at the destination.
//
// # Why so
//
// Both machines live in this process: a new one takes milliseconds where a process takes a hundred, so the whole
// matrix a hundred times is an hour and not a day, and the two memories can be compared. What two processes are
// needed for (death, sockets, journals) is tested in cmd/fineline. One guest makes one journey through
// all modes, granularities and baselines in a shuffled order, so that each follows each other one.
//
// A journey is named by its seed: settings and order are drawn from it. The timing is not.
//
// # Rejected
//
// A checker that knows the migration's own figures, such as pages sent: it would be wrong with them.
package matrix
