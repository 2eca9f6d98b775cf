package main

import (
	"fmt"
	"sync/atomic"
	"time"
)

// clocks holds the latest readings of all workers, in nanoseconds.
type clocks struct {
	monotonic atomic.Int64 // since start
	realtime  atomic.Int64 // since the epoch
	maxGap    atomic.Int64 // longest time between two readings of one worker
	now       func() (monotonic, realtime int64)
}

// newClocks uses time.Now, which reads both clocks through the vDSO: the path
// that trusts the guest's TSC and kvmclock, and the one that goes wrong.
func newClocks() *clocks {
	start := time.Now()
	return &clocks{now: func() (int64, int64) {
		t := time.Now()
		return int64(t.Sub(start)), t.UnixNano()
	}}
}

// observe reads the clocks and reports one that is behind a reading that some
// worker had already published before ours began. previous is this worker's
// last monotonic reading, 0 for none; the new one is returned.
func (c *clocks) observe(previous int64, report func(string)) int64 {
	seenMonotonic, seenRealtime := c.monotonic.Load(), c.realtime.Load()
	monotonic, realtime := c.now()
	if monotonic < seenMonotonic {
		report(fmt.Sprintf("CLOCK_MONOTONIC went back by %d ns", seenMonotonic-monotonic))
	}
	if realtime < seenRealtime {
		report(fmt.Sprintf("CLOCK_REALTIME went back by %d ns", seenRealtime-realtime))
	}
	raise(&c.monotonic, monotonic)
	raise(&c.realtime, realtime)
	if previous != 0 {
		raise(&c.maxGap, monotonic-previous)
	}
	return monotonic
}

// raise sets v to x if that is more.
func raise(v *atomic.Int64, x int64) {
	for {
		old := v.Load()
		if x <= old || v.CompareAndSwap(old, x) {
			return
		}
	}
}
