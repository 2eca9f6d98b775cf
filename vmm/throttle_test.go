package vmm

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/images/dirtycheck"
)

// stepClock is the time of a throttle, which the test lets pass.
type stepClock struct {
	asked chan time.Duration // how long the throttle wants to wait
	pass  chan time.Time
}

func newStepClock() *stepClock {
	return &stepClock{asked: make(chan time.Duration), pass: make(chan time.Time)}
}

func (c *stepClock) after(d time.Duration) <-chan time.Time {
	c.asked <- d
	return c.pass
}

func steps(t *testing.T, m *Machine) uint64 {
	t.Helper()
	s, err := dirtycheck.ReadState(m.Memory())
	if err != nil {
		t.Fatal(err)
	}
	return s.Steps()
}

// TestThrottle: the guest stands still while it is to stand, gets forward before it stands again, and
// runs on after the end.
func TestThrottle(t *testing.T) {
	for _, cpus := range []int{1, 4} {
		t.Run(fmt.Sprint(cpus), func(t *testing.T) {
			m, _ := dirtyMachine(t, cpus, "pages=64 rate=0", false)
			clock := newStepClock()
			th := startThrottle(m.cpus, 0.75, clock.after)
			var stood, entered uint64
			for stands := 0; stands < repeats(20); clock.pass <- (time.Time{}) {
				switch d := <-clock.asked; d {
				case 15 * time.Millisecond:
					stands++
					if now := th.entered(); now == entered {
						t.Error("it stands again and no vCPU has run")
					} else {
						entered = now
					}
					stood = wantStill(t, m)
				case 5 * time.Millisecond:
					if stands%2 == 0 { // else the time is over before a vCPU can have come to run
						awaitSteps(t, m, stood)
					}
				default:
					t.Fatalf("a wait of %v: neither 75 %% nor 25 %% of 20 ms", d)
				}
			}
			ended := make(chan struct{})
			go func() { th.end(); close(ended) }()
			for waiting := true; waiting; {
				select {
				case <-clock.asked:
				case <-ended:
					waiting = false
				}
			}
			awaitSteps(t, m, steps(t, m))
			check(t, m)
		})
	}
}

// wantStill checks that no vCPU is in the guest and returns the guest's steps.
func wantStill(t *testing.T, m *Machine) uint64 {
	t.Helper()
	stood := steps(t, m)
	for _, c := range m.cpus {
		c.mu.Lock()
		is := c.is
		c.mu.Unlock()
		if is != parked {
			t.Errorf("vCPU %d runs while it is to stand", c.id)
		}
	}
	if now := steps(t, m); now != stood {
		t.Errorf("step %d after %d while it is to stand", now, stood)
	}
	return stood
}

// TestThrottleBesideTheRest: whoever pauses, saves, resumes or stops a throttled machine notices nothing.
func TestThrottleBesideTheRest(t *testing.T) {
	m, _ := dirtyMachine(t, 2, "pages=64 rate=0", false)
	for i := range repeats(100) {
		if err := m.Throttle(float64(i%34) * 0.03); err != nil {
			t.Fatal(err)
		}
		last := check(t, m) // pauses
		if now := steps(t, m); now != last {
			t.Fatalf("step %d after %d on a paused machine", now, last)
		}
		if _, err := m.Save(true); err != nil {
			t.Fatal(err)
		}
		if err := m.Resume(); err != nil {
			t.Fatal(err)
		}
		awaitSteps(t, m, last)
	}
	if err := m.Throttle(maxThrottle); err != nil {
		t.Fatal(err)
	}
	// One vCPU at a time besides: turns and throttle hold the same vCPUs.
	turns, err := startTurns(m.cpus)
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		awaitSteps(t, m, steps(t, m))
	}
	turns.end()
	m.Stop()
	if err := m.Throttle(0.5); err != nil || m.throttle != nil {
		t.Errorf("a stopped machine is throttled: %v", err)
	}
}

func TestThrottleRefuses(t *testing.T) {
	for _, share := range []float64{-0.1, 1, 7, math.NaN(), math.Inf(1)} {
		if err := new(Machine).Throttle(share); err == nil {
			t.Errorf("a throttle by %g was taken", share)
		}
	}
}

// TestThrottleShares: the guest answers within 20 ms up to 95 %, and no run is too short to be one.
func TestThrottleShares(t *testing.T) {
	for share, want := range map[float64][2]time.Duration{
		0.01: {19800 * time.Microsecond, 200 * time.Microsecond},
		0.5:  {10 * time.Millisecond, 10 * time.Millisecond},
		0.95: {time.Millisecond, 19 * time.Millisecond},
		0.99: {time.Millisecond, 99 * time.Millisecond},
	} {
		th := startThrottle(nil, share, time.After)
		th.end()
		if got := [2]time.Duration{th.run.Round(time.Microsecond), th.stand.Round(time.Microsecond)}; got != want {
			t.Errorf("%g: runs %v and stands %v, want %v", share, got[0], got[1], want)
		}
	}
}
