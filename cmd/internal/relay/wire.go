package relay

import (
	"context"
	"sync"
	"time"
)

// queueTime is how long the queue in front of a wire may be.
const queueTime = 2 * time.Millisecond

// wire is one direction of the link, shared by all connections.
type wire struct {
	bytesPerS uint64
	delay     time.Duration

	mu   sync.Mutex
	free time.Time // when the last byte of the queue has left
}

// send puts n bytes, which came at now, into the queue. They arrive at the far end at arrives; until accepted
// the queue is too long, and the sender must not send more.
func (w *wire) send(now time.Time, n int) (accepted, arrives time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.free.Before(now) {
		w.free = now
	}
	w.free = w.free.Add(w.time(n))
	return w.free.Add(-queueTime), w.free.Add(w.delay)
}

// time is how long the wire takes for n bytes.
func (w *wire) time(n int) time.Duration {
	return time.Duration(float64(n) / float64(w.bytesPerS) * float64(time.Second))
}

// inFlight is how many bytes of one connection may be between its sender and its receiver.
func (w *wire) inFlight() int {
	return int(float64(w.bytesPerS) * (2*queueTime + w.delay).Seconds())
}

// sleepUntil returns at t, or when ctx ends.
func sleepUntil(ctx context.Context, t time.Time) error {
	d := time.Until(t)
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
