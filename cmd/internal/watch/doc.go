// Package watch turns the tracking of lines of a running machine into windows of time: what the control
// API's clients see of it. It joins vmm/api, which knows no tracker, with coherence/track, which knows
// no clock.
//
// A window begins when the harvest of the one before it begins, and ends so: each written line is in exactly one
// window, that of the harvest which found it. A window is at least as long as was asked for, and says how
// long it was; a late one does not make the next one shorter. Window 0 begins when the tracking does and is as
// exact as any; who compares with KTracker, whose window 0 holds every line, drops it.
//
// # Rejected
//
// Windows at fixed instants (a harvest that takes longer than a window would make empty ones, and amplification
// depends on the length of the window); a goroutine that harvests ahead of a slow client (it would need a
// queue, and a bound for it).
package watch
