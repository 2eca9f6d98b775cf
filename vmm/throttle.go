package vmm

import (
	"fmt"
	"time"
)

// A throttled guest runs and stands in turns of throttlePeriod together, or longer when its part of that
// would be below minThrottleRun: a kick costs up to a quarter of a millisecond, and a vCPU that has just
// entered has cold caches.
const (
	throttlePeriod = 20 * time.Millisecond
	minThrottleRun = time.Millisecond
	maxThrottle    = 0.99 // as QEMU's cpu-throttle
)

// throttle slows a guest that writes faster than a migration can send. All vCPUs stand at the same time: one
// that waits for another's lock would spin its whole turn for nothing, were only the other held.
//
// QEMU lets each vCPU run 10 ms and then sleep for share/(1-share) times that, in its thread: at 99 % a
// second without an answer. Here the run gets shorter first, so that the guest stands for 20 ms at most up
// to 95 %, and 99 ms at 99 %.
type throttle struct {
	cpus       []*vcpu
	run, stand time.Duration
	after      func(time.Duration) <-chan time.Time // time.After, but in tests
	stop       chan struct{}
	done       chan struct{}
}

// startThrottle begins with a stand. share is above 0 and at most maxThrottle.
func startThrottle(cpus []*vcpu, share float64, after func(time.Duration) <-chan time.Time) *throttle {
	run := max(time.Duration(float64(throttlePeriod)*(1-share)), minThrottleRun)
	t := &throttle{
		cpus: cpus, run: run, stand: time.Duration(float64(run) * share / (1 - share)), after: after,
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	go t.loop()
	return t
}

func (t *throttle) loop() {
	defer close(t.done)
	for {
		before := t.entered()
		for _, c := range t.cpus {
			c.hold()
		}
		for _, c := range t.cpus {
			c.awaitStill() // one that waits for a missing page stands anyway
		}
		goOn := t.sleep(t.stand)
		for _, c := range t.cpus {
			c.unhold()
		}
		if !goOn || !t.give(before) {
			return
		}
	}
}

// give returns when the guest has had its time, or false when the throttle ends. The time counts only from
// where a vCPU was seen to have entered the guest, as in turns. One is enough: others may be held for their
// turns. A machine that is paused has no use for it.
func (t *throttle) give(before uint64) bool {
	for seen := false; !seen; {
		seen = t.entered() != before || !t.wanted()
		if !t.sleep(t.run) {
			return false
		}
	}
	return true
}

// entered counts the vCPUs' entries.
func (t *throttle) entered() (entries uint64) {
	for _, c := range t.cpus {
		entries += c.entered()
	}
	return entries
}

func (t *throttle) wanted() bool {
	for _, c := range t.cpus {
		if c.wanted() {
			return true
		}
	}
	return false
}

// sleep returns false when the throttle ends meanwhile.
func (t *throttle) sleep(d time.Duration) bool {
	select {
	case <-t.after(d):
		return true
	case <-t.stop:
		return false
	}
}

// end lets the guest run all the time again. A nil throttle does nothing.
func (t *throttle) end() {
	if t != nil {
		close(t.stop)
		<-t.done
	}
}

// Throttle has the guest stand still for this share of the time, from 0, which ends it, to 0.99, in slices
// of some milliseconds. What Pause, Resume and all others want of the guest holds as before.
func (m *Machine) Throttle(share float64) error {
	if !(share >= 0 && share <= maxThrottle) { // NaN is neither
		return fmt.Errorf("throttle by %g: give a share from 0 to %g", share, maxThrottle)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.throttle.end()
	m.throttle = nil
	if share > 0 && m.status != Stopped {
		m.throttle = startThrottle(m.cpus, share, time.After)
	}
	return nil
}
