package migration

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// clock is time as the package sees it; tests replace it.
type clock interface {
	// Now is CLOCK_MONOTONIC, which all processes of one boot (and time namespace) share.
	Now() time.Duration
	// Sleep returns after d, or with the context's cause.
	Sleep(ctx context.Context, d time.Duration) error
	// After is for who waits for something else, too.
	After(d time.Duration) <-chan time.Time
}

type hostClock struct{}

func (hostClock) Now() time.Duration {
	var ts unix.Timespec
	// CLOCK_MONOTONIC always exists; Go's own monotonic reading cannot be compared between processes.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return time.Duration(ts.Nano())
}

func (hostClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

func (hostClock) Sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
