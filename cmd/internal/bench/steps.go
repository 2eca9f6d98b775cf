package bench

import (
	"context"
	"errors"
	"time"
)

// steps watches how fast the guest writes.
type steps struct {
	cancel context.CancelFunc
	done   chan struct{}
	rate   float64
	err    error
}

// asker is a guest that says how many steps it has made.
type asker interface {
	Steps(context.Context) (uint64, error)
}

// firstWindow is a second, in which every VMM's guest has got its memory and most of the time has gone into waiting for it.
const firstWindow = time.Second

// countSteps counts what the guest does in a window after running has returned, which is when it runs.
func countSteps(ctx context.Context, guest asker, window time.Duration, running func(context.Context) error) *steps {
	ctx, cancel := context.WithCancel(ctx)
	s := &steps{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		if s.err = running(ctx); s.err == nil {
			s.rate, s.err = stepRate(ctx, guest, window)
		}
	}()
	return s
}

// rateWhen returns the steps a second when the window is over, or at once if moved is false: then there is nothing to count.
func (s *steps) rateWhen(moved bool) (float64, error) {
	if !moved {
		s.cancel()
	}
	<-s.done
	s.cancel()
	if errors.Is(s.err, context.Canceled) {
		return 0, nil
	}
	return s.rate, s.err
}

// stepRate is that of a window from now on. It never leaves a question open. Steps before the first answer are
// not counted, and the time until it comes is.
func stepRate(ctx context.Context, guest asker, window time.Duration) (float64, error) {
	began := time.Now()
	lasting := context.WithoutCancel(ctx)
	first, err := guest.Steps(lasting)
	if err != nil {
		return 0, err
	}
	select {
	case <-time.After(window - time.Since(began)):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	last, err := guest.Steps(lasting)
	return float64(last-first) / time.Since(began).Seconds(), err
}

// usualRate is the guest's, before anything is done to it.
func usualRate(ctx context.Context, guest asker) (float64, error) {
	return stepRate(ctx, guest, 200*time.Millisecond)
}
