package migration

// Throttler is a Source whose guest can be slowed down.
type Throttler interface {
	// Throttle lets the vCPUs run only 1-share of the time, until the next call; 0 ends it.
	Throttle(share float64) error
}

// The steps in which a guest is slowed down, in percent of its time. They are QEMU's (cpu-throttle-initial
// and -increment), with an end that leaves the guest alive.
const (
	firstSlowDownPercent = 20
	slowDownStepPercent  = 15
	mostSlowDownPercent  = 95
)

// slowDown takes the next step. It reports false when there is none.
func (s *sender) slowDown() bool {
	t, ok := s.src.(Throttler)
	percent := s.result.ThrottlePercent + slowDownStepPercent
	if s.result.ThrottlePercent == 0 {
		percent = firstSlowDownPercent
	}
	if !ok || percent > mostSlowDownPercent {
		return false
	}
	if err := t.Throttle(float64(percent) / 100); err != nil {
		s.opts.Log.Warnf("migration: cannot slow the guest down: %v", err)
		return false
	}
	s.opts.Log.Infof("migration: the guest writes faster than it can be sent: it runs %d %% of the time now", 100-percent)
	s.result.ThrottlePercent = percent
	s.throttledAt = len(s.result.Rounds)
	return true
}

// speedUp ends it. The guest is paused, or stays.
func (s *sender) speedUp() {
	if s.result.ThrottlePercent == 0 {
		return
	}
	if err := s.src.(Throttler).Throttle(0); err != nil {
		s.opts.Log.Warnf("migration: the guest stays slow: %v", err)
	}
}
