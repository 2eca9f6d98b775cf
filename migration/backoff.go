package migration

import "time"

// backoff spaces attempts of which one can succeed and bring nothing: the first is at once, and each waits longer than the
// one before until something has come. So a peer that takes every connection, and drops it, costs little.
type backoff struct{ wait time.Duration }

// next is how long to wait before the next attempt.
func (b *backoff) next() time.Duration {
	wait := b.wait
	b.wait = min(max(2*wait, firstRetry), lastRetry)
	return wait
}

// reset: something has come.
func (b *backoff) reset() { b.wait = 0 }
