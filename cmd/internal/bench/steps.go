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

// countSteps asks the guest from when it runs until stop is called; running returns when it does.
func countSteps(ctx context.Context, guest asker, running func(context.Context) error) *steps {
	ctx, cancel := context.WithCancel(ctx)
	s := &steps{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		if s.err = running(ctx); s.err == nil {
			s.rate, s.err = stepRate(ctx, guest)
		}
	}()
	return s
}

// stop returns the steps a second between the first answer and the last one.
func (s *steps) stop() (float64, error) {
	s.cancel()
	<-s.done
	if errors.Is(s.err, context.Canceled) {
		return 0, nil // it did not run before the end
	}
	return s.rate, s.err
}

// stepRate is from now until ctx ends. It never leaves a question open.
func stepRate(ctx context.Context, guest asker) (float64, error) {
	lasting := context.WithoutCancel(ctx)
	first, err := guest.Steps(lasting)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	<-ctx.Done()
	last, err := guest.Steps(lasting)
	return float64(last-first) / time.Since(began).Seconds(), err
}

// usualRate is the guest's, before anything is done to it.
func usualRate(ctx context.Context, guest asker) (float64, error) {
	const window = 200 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, window)
	defer cancel()
	return stepRate(ctx, guest)
}
