package migration

import (
	"context"
	"sync"
	"time"
)

// throttle limits bytes a second, of all streams together. It keeps a debt: the bytes of one call are
// paid for by the wait before the next, so a single small hand-over never waits.
type throttle struct {
	clock     clock
	bytesPerS uint64 // 0: no limit

	mu          sync.Mutex
	nextAllowed time.Duration
}

// wait returns when n bytes may be sent.
func (t *throttle) wait(ctx context.Context, n int) error {
	if t.bytesPerS == 0 {
		return nil
	}
	if wait := t.reserve(n); wait > 0 {
		return t.clock.Sleep(ctx, wait)
	}
	return nil
}

// reserve takes the next n bytes of the plan and returns how long it is until then.
func (t *throttle) reserve(n int) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.clock.Now()
	wait := t.nextAllowed - now
	// From the planned instant and not from a late waking, so that the mean is exact; but an idle time
	// earns no burst.
	t.nextAllowed = max(t.nextAllowed, now) + transferTime(uint64(n), float64(t.bytesPerS))
	return wait
}

// batchBytes is how much to send at once: a tenth of a second, so that a slow link is not used in
// bursts of a megabyte.
func (t *throttle) batchBytes(most int) int {
	if t.bytesPerS == 0 || t.bytesPerS/10 >= uint64(most) {
		return most
	}
	return int(t.bytesPerS / 10)
}

// transferTime is how long n bytes take.
func transferTime(n uint64, bytesPerS float64) time.Duration {
	return time.Duration(float64(n) / bytesPerS * float64(time.Second))
}
