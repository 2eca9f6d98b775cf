package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fineline-vmm/fineline/cmd/internal/workload"
	"github.com/fineline-vmm/fineline/migration"
	"github.com/fineline-vmm/fineline/vmm/api"
)

// fineline migrates once between two of our processes.
func (m *Move) fineline(ctx context.Context, dir string, s Scenario, x extras) (_ record, err error) {
	kernel, err := extract(dir, workload.Name)
	if err != nil {
		return record{}, err
	}
	source, err := workload.StartSource(ctx, m.Exe, dir, kernel, s.memoryMiB, s.load)
	if err != nil {
		return record{}, err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	destination, err := workload.StartDestination(ctx, m.Exe, dir)
	if err != nil {
		return record{}, err
	}
	defer func() { err = errors.Join(err, destination.Close()) }()
	if _, err := source.Guest.AwaitSteps(ctx, s.load.Pages*s.load.Lines); err != nil {
		return record{}, err
	}
	o := ourMove{Move: m, scenario: s, source: source, destination: destination}
	if x.steps {
		if o.sample.before, err = usualRate(ctx, source.Guest); err != nil {
			return record{}, err
		}
	}
	r, err := o.migrate(ctx, dir, x)
	if err != nil {
		return record{}, err
	}
	if o.KeepSource {
		if o.sample.kept, err = o.measureKept(ctx); err != nil {
			return record{}, err
		}
	}
	check, err := destination.Guest.Check(ctx)
	if err != nil {
		return record{}, err
	}
	o.sample.mismatches = check.Mismatches
	o.sample.of(r)
	err = errors.Join(check.Err(), o.sample.takenByBoth())
	if r.SourceCPUMS > 0 {
		o.sample.source.cpuMS = r.SourceCPUMS // from outside, what a vCPU's thread took is lost when that ends with the migration
	}
	return record{sample: o.sample, result: r}, err
}

// ourMove is one migration of ours.
type ourMove struct {
	*Move
	scenario            Scenario
	source, destination *workload.Machine
	sample              sample
}

// migrate is the part that is measured.
func (o *ourMove) migrate(ctx context.Context, dir string, x extras) (_ *migration.Result, err error) {
	to, end, err := o.connect(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end()) }()
	err = errors.Join(o.sample.source.watch(o.source.PID(), o.scenario.memoryBytes()),
		o.sample.destination.watch(o.destination.PID(), o.scenario.memoryBytes()))
	if err != nil {
		return nil, err
	}
	var watched *steps
	if x.steps {
		watched = countSteps(ctx, o.destination.Guest, firstWindow, o.running)
	}
	r, err := o.source.Migrate(ctx, o.request("unix:"+to), func(migration.Progress) {})
	timesErr := errors.Join(o.sample.source.stop(), o.sample.destination.stop())
	if watched != nil {
		var stepsErr error
		o.sample.after, stepsErr = watched.rateWhen(err == nil)
		timesErr = errors.Join(timesErr, stepsErr)
	}
	switch {
	case err != nil:
		return nil, err
	case r.Status != migration.StatusCompleted:
		return nil, fmt.Errorf("the migration %s: %s", r.Status, r.Error)
	}
	return r, timesErr
}

func (o *ourMove) request(to string) api.MigrationRequest {
	r := api.MigrationRequest{
		DestinationURL: to, DowntimeMS: o.MaxDowntime.Milliseconds(),
		TimeoutS: int64(o.patience(&o.scenario) / time.Second), TimeoutStrategy: "Ignore", Local: o.Local,
	}
	if !o.Local {
		r.MaxBandwidthBytesPerSecond = int64(o.bandwidth(&o.scenario))
		r.MemoryMode, r.Granularity, r.Connections = o.Mode, o.Granularity, o.Streams
		r.Baseline, r.BaselineBudgetBytes = o.Baseline, int64(o.BaselineBudgetBytes)
		r.KeepSource = o.KeepSource
	}
	return r
}

// runningInterval is how often a destination is asked whether its guest runs.
const runningInterval = 5 * time.Millisecond

// running returns when the guest runs at the destination.
func (o *ourMove) running(ctx context.Context) error {
	tick := time.NewTicker(runningInterval)
	defer tick.Stop()
	for {
		info, err := o.destination.API.Info(ctx)
		if err != nil || info.State == api.StateRunning {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// of takes over what the source reports.
func (s *sample) of(r *migration.Result) {
	s.totalMS, s.downtimeMS, s.ownDowntimeMS = r.TotalMS, r.DowntimeMS, r.DowntimeMS
	s.bytesSent, s.bytesInDowntime = float64(r.BytesSent), float64(r.BytesInDowntime)
	s.baselineMiB, s.throttle = float64(r.BaselineBytes)/mib, float64(r.ThrottlePercent)
	s.rounds, s.converged = float64(len(r.Rounds)), r.Converged
	f := &r.Faults
	s.stocked, s.asked50US, s.asked99US = float64(f.Stocked), f.AskedP50US, f.AskedP99US
	s.requests, s.p50US, s.p99US, s.maxUS = float64(f.Count), f.P50US, f.P99US, f.MaxUS
	s.predicted, s.stored, s.caught = float64(f.Prefetched), float64(f.PredictedStored), float64(f.PrefetchHits)
	s.right, s.wrong = float64(f.PredictedRight), float64(f.PredictedWrong)
	s.afterResumeMS = afterResume(r)
}

// afterResume is what of the total comes after the commit, the last phase before the guest runs.
func afterResume(r *migration.Result) float64 {
	left := r.TotalMS
	for _, p := range r.Phases {
		left -= p.MS
		if p.Phase == "commit" {
			break
		}
	}
	return max(0, left)
}
