package migration

import (
	"fmt"
	"time"
)

// stage is a step of the timeline.
type stage int

// The stages of a migration that succeeds, in the only order there is.
const (
	stageStart stage = iota
	stagePreflight
	stagePrecopy
	stagePausing  // Pause was called
	stageStopCopy // Pause returned: the guest is down
	stageState    // all pages are sent
	stageCommit   // the destination is ready
	stageRunning  // the guest is up
	stageComplete // post-copy: and has all its memory
	stageCount
)

var stageNames = [stageCount]string{
	"start", PhasePreflight, PhasePrecopy, "pausing", "stop-copy", "state", "commit", "running", "complete",
}

func (s stage) String() string { return stageNames[s] }

// timeline records when each stage began. A figure taken from stages out of order would be nonsense
// that looks like a measurement, so enter refuses.
type timeline struct {
	clock clock
	now   stage
	at    [stageCount]time.Duration
}

func newTimeline(c clock) *timeline {
	t := &timeline{clock: c}
	t.at[stageStart] = c.Now()
	return t
}

// enter begins the stage now.
func (t *timeline) enter(s stage) error { return t.enterAt(s, t.clock.Now()) }

// enterAt begins the stage at an instant of the same clock.
func (t *timeline) enterAt(s stage, at time.Duration) error {
	if s != t.now+1 {
		return fmt.Errorf("timeline: %s after %s", s, t.now)
	}
	if at < t.at[t.now] {
		return fmt.Errorf("timeline: %s began %v before %s", s, t.at[t.now]-at, t.now)
	}
	t.now, t.at[s] = s, at
	return nil
}

// downtime is from the pause to the first instruction at the destination.
func (t *timeline) downtime() (time.Duration, error) {
	if t.now < stageRunning {
		return 0, fmt.Errorf("timeline: no downtime at %s", t.now)
	}
	return t.at[stageRunning] - t.at[stageStopCopy], nil
}

// total is from the start to the guest's first instruction at the destination, or in post-copy to the last of its
// memory there; of a migration that failed, to now.
func (t *timeline) total(failed bool) time.Duration {
	if t.now >= stageRunning && !failed {
		return t.at[t.now] - t.at[stageStart]
	}
	return t.elapsed()
}

func (t *timeline) elapsed() time.Duration { return t.clock.Now() - t.at[stageStart] }

// phases lists the finished stages with their lengths.
func (t *timeline) phases() []PhaseTime {
	out := []PhaseTime{} // in JSON it is a list, if an empty one
	for s := stageStart; s < t.now; s++ {
		out = append(out, PhaseTime{Phase: s.String(), MS: milliseconds(t.at[s+1] - t.at[s])})
	}
	return out
}
