package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/fineline-vmm/fineline/cmd/internal/qemu"
	"github.com/fineline-vmm/fineline/cmd/internal/workload"
)

// qemu migrates once between two of QEMU's processes.
func (m *Move) qemu(ctx context.Context, dir string, s Scenario, setting qemu.Setting, x extras) (_ record, err error) {
	kernel, err := extract(dir, workload.Name)
	if err != nil {
		return record{}, err
	}
	// -S: the guest says its first word when there is somebody to hear it.
	source, err := startQEMU(ctx, dir, "source", kernel, s, append(setting.Memory(s.memoryMiB), "-S")...)
	if err != nil {
		return record{}, err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	incoming, trace := append(setting.Memory(s.memoryMiB), "-incoming", "defer"), filepath.Join(dir, "trace")
	traced := setting.Postcopy && x.count
	if traced {
		incoming = append(incoming, qemu.TraceFaults(trace)...)
	}
	destination, err := startQEMU(ctx, dir, "destination", kernel, s, incoming...)
	if err != nil {
		return record{}, err
	}
	defer func() { err = errors.Join(err, destination.Close()) }()
	if err := source.begin(ctx, s.load); err != nil {
		return record{}, err
	}
	t := theirMove{Move: m, scenario: s, setting: setting, source: source, destination: destination}
	if x.steps {
		if t.sample.before, err = usualRate(ctx, source.guest); err != nil {
			return record{}, err
		}
	}
	r, err := t.migrate(ctx, dir, x)
	if err != nil {
		return record{}, err
	}
	check, err := destination.guest.Check(ctx)
	if err != nil {
		return record{}, err
	}
	t.sample.mismatches = check.Mismatches
	t.sample.ofQEMU(r)
	if traced {
		if err := t.sample.readTrace(trace); err != nil {
			return record{}, err
		}
	}
	err = errors.Join(check.Err(), t.sample.takenByBoth())
	return record{sample: t.sample, peer: r}, err
}

// begin lets the guest run until it has written all of its lines.
func (v *qemuMachine) begin(ctx context.Context, load workload.Load) error {
	if err := v.Execute(ctx, "cont", nil, nil); err != nil {
		return err
	}
	if err := v.guest.AwaitReady(ctx); err != nil {
		return err
	}
	_, err := v.guest.AwaitSteps(ctx, load.Pages*load.Lines)
	return err
}

// theirMove is one migration of QEMU's.
type theirMove struct {
	*Move
	scenario            Scenario
	setting             qemu.Setting
	source, destination *qemuMachine
	sample              sample
}

// migrate is the part that is measured.
func (t *theirMove) migrate(ctx context.Context, dir string, x extras) (_ *qemu.Migration, err error) {
	from, end, err := t.connect(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end()) }()
	err = errors.Join(t.sample.source.watch(t.source.PID(), t.scenario.memoryBytes()),
		t.sample.destination.watch(t.destination.PID(), t.scenario.memoryBytes()))
	if err != nil {
		return nil, err
	}
	o := qemu.MigrationOptions{
		Setting: t.setting, From: "unix:" + from, To: "unix:" + filepath.Join(dir, incomingSocket), MaxDowntime: t.MaxDowntime,
		MaxBandwidthBytesPerS: t.bandwidth(&t.scenario), Patience: t.patience(&t.scenario),
		CountDowntime: x.count, FollowRounds: x.rounds,
	}
	var watched *steps
	if x.steps {
		resumed := make(chan struct{})
		o.Resumed = sync.OnceFunc(func() { close(resumed) })
		watched = countSteps(ctx, t.destination.guest, firstWindow, func(ctx context.Context) error {
			select {
			case <-resumed:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}
	r, err := qemu.Migrate(ctx, t.source.Monitor, t.destination.Monitor, o)
	timesErr := errors.Join(t.sample.source.stop(), t.sample.destination.stop())
	if watched != nil {
		var stepsErr error
		t.sample.after, stepsErr = watched.rateWhen(err == nil)
		timesErr = errors.Join(timesErr, stepsErr)
	}
	if err != nil {
		return nil, err
	}
	return r, timesErr
}

func (s *sample) ofQEMU(r *qemu.Migration) {
	s.totalMS, s.downtimeMS, s.ownDowntimeMS = r.TotalMS, r.DowntimeMS, r.OwnDowntimeMS
	s.bytesSent, s.bytesInDowntime = float64(r.BytesSent), float64(r.BytesInDowntime)
	s.rounds, s.converged = float64(r.Rounds), r.Converged
	s.requests, s.afterResumeMS = float64(r.Requests), r.AfterResumeMS
}

// readTrace takes the latencies of single requests from the trace.
func (s *sample) readTrace(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	all, err := qemu.ParseFaults(f)
	if err != nil {
		return err
	}
	for _, d := range all {
		s.faultsUS = append(s.faultsUS, microseconds(d))
	}
	if len(all) > 0 {
		s.p50US, s.p99US, s.maxUS = quantile(s.faultsUS, 0.5), quantile(s.faultsUS, 0.99), slices.Max(s.faultsUS)
	}
	return nil
}

// qemuMachine is a QEMU and the conversation with the guest in it.
type qemuMachine struct {
	*qemu.VM
	guest *workload.Guest
}

func startQEMU(ctx context.Context, dir, name, kernel string, s Scenario, args ...string) (*qemuMachine, error) {
	serial := filepath.Join(dir, name+".serial")
	args = append(append(qemu.MicroVM(), "-smp", fmt.Sprint(s.load.VCPUs),
		"-kernel", kernel, "-append", s.load.Cmdline(), "-serial", "unix:"+serial+",server=on,wait=off"), args...)
	v, err := qemu.Start(ctx, dir, name, args...)
	if err != nil {
		return nil, err
	}
	guest, err := workload.Dial(ctx, serial)
	if err != nil {
		return nil, errors.Join(err, v.Close())
	}
	return &qemuMachine{VM: v, guest: guest}, nil
}

// Close ends the process.
func (v *qemuMachine) Close() error { return errors.Join(v.guest.Close(), v.VM.Close()) }
