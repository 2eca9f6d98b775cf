package migration

import (
	"time"
)

// Rule says when pre-copy ends. It is a pure function of what the rounds have shown.
//
// It reckons in time: how long the newest rounds took for each page that they looked at, all of it,
// comparing, sending and storing. A page of which one line has changed counts for what that line takes, so
// what must fit into the downtime is the guest's line rate and not its page rate.
//
// What other tools do when the guest writes faster than that: QEMU goes on for ever, Cloud Hypervisor gives up or goes on
// after an hour, Xen stops after a fixed number of rounds. A user who typed "migrate" wants the machine
// moved, and one who gave a downtime wants it kept. So the guest is slowed down, step by step; if not even that
// helps, the last rounds are forced and the result says converged: false.
type Rule struct {
	MaxDowntime time.Duration
	MaxRounds   int // rounds with the guest running
	StallRounds int // rounds in a row without progress
}

// decision is the outcome of Rule.decide.
type decision int

const (
	continueRounds decision = iota
	stopConverged           // the rest fits
	slowDown                // it does not, and more rounds will not help: the guest should run slower
	stopForced              // nothing helps
)

// outlook is what is known at the end of a round.
type outlook struct {
	rounds         []Round
	remainingPages uint64        // written during the last round
	overhead       time.Duration // of the pause itself, the state and the commit
	throttledAt    int           // how many rounds there were when the guest was slowed down last
}

// copying estimates what sending the rest takes.
func (o outlook) copying() time.Duration {
	return time.Duration(float64(o.remainingPages) * float64(timePerPage(o.rounds)))
}

// downtime estimates what stopping now would cost.
func (o outlook) downtime() time.Duration { return o.overhead + o.copying() }

// decide is called after every round with the guest running.
func (r Rule) decide(o outlook) decision {
	if o.remainingPages == 0 {
		return stopConverged // nothing can be gained by another round
	}
	if o.downtime() <= r.MaxDowntime && !r.worthwhile(o) {
		return stopConverged
	}
	switch {
	case len(o.rounds) >= r.MaxRounds:
		if o.downtime() <= r.MaxDowntime {
			return stopConverged
		}
		return stopForced
	case r.stalled(o):
		return slowDown
	}
	return continueRounds
}

// A round more is worth its while, though the rest fits, while it shortens the downtime by much.
const (
	worthwhileShrink = 0.7                    // of the best before
	worthwhileRounds = 3                      // in a row without that, and it is enough
	worthwhileTime   = 300 * time.Microsecond // to gain at least
)

// worthwhile: one of the last rounds left clearly less than the best before it, and what is left still takes
// time. What fits into MaxDowntime is sent in about that time, and it shrinks, so that all such rounds
// together take a few MaxDowntimes at most.
func (r Rule) worthwhile(o outlook) bool {
	if len(o.rounds) >= r.MaxRounds || o.copying() < worthwhileTime {
		return false
	}
	best, since := o.rounds[0].RemainingPages, 0
	for _, round := range o.rounds[1:] {
		since++
		if float64(round.RemainingPages) <= worthwhileShrink*float64(best) {
			best, since = round.RemainingPages, 0
		}
	}
	return since < worthwhileRounds
}

// stalled: none of the last StallRounds rounds left clearly less to do than the best before them. Rounds
// from before the guest was slowed down do not count.
func (r Rule) stalled(o outlook) bool {
	rounds := o.rounds[o.throttledAt:]
	if len(rounds) <= r.StallRounds {
		return false
	}
	split := len(rounds) - r.StallRounds
	best := rounds[0].RemainingPages
	for _, round := range rounds[:split] {
		best = min(best, round.RemainingPages)
	}
	for _, round := range rounds[split:] {
		if round.RemainingPages < best-best/10 {
			return false
		}
	}
	return true
}

// timeWindowPages: the time a page takes is that of the newest rounds which together looked at so
// many. A round of a few pages is all round trip.
const timeWindowPages = 2048

// timePerPage is measured from the first byte of a round to its acknowledgement, so it holds the
// destination's work too and no byte that only lies in a socket's buffer. The first round sends
// whole pages and counts only if there is no other.
func timePerPage(rounds []Round) time.Duration {
	var pages uint64
	var took time.Duration
	for i := len(rounds) - 1; i >= 0 && pages < timeWindowPages; i-- {
		r := rounds[i]
		if r.Paused || i == 0 && pages > 0 {
			continue // a paused one has no acknowledgement
		}
		pages += r.Pages + r.CleanPages + r.ZeroPages
		took += r.took
	}
	if pages == 0 {
		return 0
	}
	return took / time.Duration(pages)
}

// bandwidthWindowBytes: the bandwidth is that of the newest rounds which together moved this much.
const bandwidthWindowBytes = 8 << 20

// bandwidth is that of the link as the rounds saw it, for reports. 0: nothing was sent yet. A
// round of mostly zero pages was spent on looking at them and says little about the link, so it counts
// only if there is no other.
func bandwidth(rounds []Round) float64 {
	if rate := bandwidthOf(rounds, false); rate > 0 {
		return rate
	}
	return bandwidthOf(rounds, true)
}

func bandwidthOf(rounds []Round, all bool) float64 {
	var bytes uint64
	var took time.Duration
	for i := len(rounds) - 1; i >= 0 && bytes < bandwidthWindowBytes; i-- {
		r := rounds[i]
		if r.Paused || !all && r.ZeroPages > r.Pages {
			continue
		}
		bytes += r.Bytes
		took += r.took
	}
	if took <= 0 {
		return 0
	}
	return float64(bytes) / took.Seconds()
}
