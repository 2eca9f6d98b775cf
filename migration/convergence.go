package migration

import (
	"time"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// Rule says when pre-copy ends. It is a pure function of what the rounds have shown.
//
// What other tools do when the guest writes faster than the link: QEMU goes on for ever, Cloud
// Hypervisor gives up or goes on after an hour, Xen stops after a fixed number of rounds. A user who
// typed "migrate" wants the machine moved, and one who gave a downtime wants to know if it was missed.
// So the last rounds are forced and the result says converged: false.
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
	stopForced              // it does not, and more rounds will not help
)

// outlook is what is known at the end of a round.
type outlook struct {
	rounds         []Round
	remainingPages uint64        // written during the last round
	overhead       time.Duration // of the pause itself, the state and the commit
	bytesPerS      float64       // 0: not known yet
}

// downtime estimates what stopping now would cost.
func (o outlook) downtime() time.Duration {
	if o.remainingPages == 0 {
		return o.overhead
	}
	const bytesAPage = memory.PageSize + wire.RecordBytes
	return o.overhead + transferTime(o.remainingPages*bytesAPage, o.bytesPerS)
}

// decide is called after every round with the guest running.
func (r Rule) decide(o outlook) decision {
	if o.remainingPages == 0 {
		return stopConverged // nothing can be gained by another round
	}
	if o.bytesPerS > 0 && o.downtime() <= r.MaxDowntime {
		return stopConverged
	}
	if len(o.rounds) < r.MaxRounds && !r.stalled(o) {
		return continueRounds
	}
	return stopForced
}

// stalled: none of the last StallRounds rounds left clearly less to do than the best before them.
func (r Rule) stalled(o outlook) bool {
	if len(o.rounds) <= r.StallRounds {
		return false
	}
	split := len(o.rounds) - r.StallRounds
	best := o.rounds[0].RemainingPages
	for _, round := range o.rounds[:split] {
		best = min(best, round.RemainingPages)
	}
	for _, round := range o.rounds[split:] {
		if round.RemainingPages < best-best/10 {
			return false
		}
	}
	return true
}

// bandwidthWindowBytes: the bandwidth is that of the newest rounds which together moved this much. A
// round of a few pages is all round trip and says nothing about the link.
const bandwidthWindowBytes = 8 << 20

// bandwidth is measured from the first byte of a round to its acknowledgement, so it holds the
// destination's work too and no byte that only lies in a socket's buffer. 0: nothing was sent yet. A
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
			continue // a paused one has no acknowledgement
		}
		bytes += r.Bytes
		took += r.took
	}
	if took <= 0 {
		return 0
	}
	return float64(bytes) / took.Seconds()
}
