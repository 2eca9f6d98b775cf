package serial

import (
	"context"
	"sync"
)

// event wakes all goroutines that wait for a condition under a mutex. It is a
// sync.Cond whose wait also ends with a context. The zero value is ready.
type event struct {
	waiters chan struct{} // nil while nobody waits
}

// wait releases mu, waits for the next fire or the end of ctx, and takes mu again.
// Like sync.Cond.Wait it belongs in a loop. Preconditions: mu is held.
func (e *event) wait(ctx context.Context, mu *sync.Mutex) error {
	if e.waiters == nil {
		e.waiters = make(chan struct{})
	}
	ch := e.waiters
	mu.Unlock()
	defer mu.Lock()
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// fire wakes all who wait. Preconditions: the mutex given to wait is held.
func (e *event) fire() {
	if e.waiters != nil {
		close(e.waiters)
		e.waiters = nil
	}
}
