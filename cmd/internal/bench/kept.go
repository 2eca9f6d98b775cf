package bench

import (
	"context"
	"time"

	"github.com/fineline-vmm/fineline/vmm/api"
)

const (
	// warmCheckpoints come before those that are measured: a page that is in one for the first time is sent as a whole.
	warmCheckpoints = 5
	// keptCheckpoints are measured.
	keptCheckpoints = 5
	// aloneWindow is how long the guest is watched without checkpoints.
	aloneWindow = time.Second
)

// kept is a guest whose source takes checkpoints of it, and the same guest when it is released.
type kept struct {
	beside, alone             float64   // steps a second
	intervalsMS, pausesUS, kB []float64 // of each checkpoint
}

// measureKept watches the guest at the destination until so many checkpoints have come, then has the source release it.
func (o *ourMove) measureKept(ctx context.Context) (k kept, err error) {
	last, err := o.awaitCheckpoint(ctx, warmCheckpoints)
	if err != nil {
		return k, err
	}
	first, err := o.destination.Guest.Steps(ctx)
	if err != nil {
		return k, err
	}
	began := time.Now()
	for range keptCheckpoints {
		if last, err = o.awaitCheckpoint(ctx, last.Checkpoint+1); err != nil {
			return k, err
		}
		k.intervalsMS = append(k.intervalsMS, last.IntervalMS)
		k.pausesUS = append(k.pausesUS, float64(last.PauseUS))
		k.kB = append(k.kB, float64(last.Bytes)/1e3)
	}
	now, err := o.destination.Guest.Steps(ctx)
	if err != nil {
		return k, err
	}
	k.beside = float64(now-first) / time.Since(began).Seconds()
	if err := o.source.API.ResolveMigration(ctx, api.DecisionDiscard); err != nil {
		return k, err
	}
	select {
	case <-o.source.Exited():
	case <-ctx.Done():
		return k, context.Cause(ctx)
	}
	k.alone, err = stepRate(ctx, o.destination.Guest, aloneWindow)
	return k, err
}

// awaitCheckpoint returns the newest when it is this one, or later.
func (o *ourMove) awaitCheckpoint(ctx context.Context, number uint64) (*api.Standby, error) {
	tick := time.NewTicker(runningInterval)
	defer tick.Stop()
	for {
		info, err := o.source.API.Info(ctx)
		if err != nil || info.Standby != nil && info.Standby.Checkpoint >= number {
			return info.Standby, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// addKeptRows reports the guest's speed beside itself without checkpoints, and what these cost.
func (m *migrator) addKeptRows(name string, ours []sample) {
	var intervals, pauses, kB []float64
	for _, s := range ours {
		intervals, pauses, kB = append(intervals, s.kept.intervalsMS...), append(pauses, s.kept.pausesUS...), append(kB, s.kept.kB...)
	}
	m.report.add(name+": guest's steps beside checkpoints", "M/s", "without them",
		pick(ours, func(s sample) float64 { return s.kept.beside / 1e6 }), pick(ours, func(s sample) float64 { return s.kept.alone / 1e6 }))
	m.report.add(name+": from checkpoint to checkpoint", "ms", "", intervals, nil)
	m.report.add(name+": pause for a checkpoint", "µs", "", pauses, nil)
	m.report.add(name+": sent for a checkpoint", "kB", "", kB, nil)
}
