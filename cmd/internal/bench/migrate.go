package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fineline-vmm/fineline/cmd/internal/qemu"
	"github.com/fineline-vmm/fineline/cmd/internal/workload"
	"github.com/fineline-vmm/fineline/migration"
	"github.com/fineline-vmm/fineline/vmm/api"
)

// Peers of Migrate.
const (
	PeerQEMU        = "qemu"
	PeerQEMUMultifd = "qemu-multifd" // pages over two more connections
	PeerNone        = "none"
)

const (
	migrateGuestMiB = 1024
	// migratePatience is when a migration that does not converge gives up its downtime goal.
	migratePatience = 4 * time.Second
)

// MigrateOptions say what to measure.
type MigrateOptions struct {
	Exe         string // Fineline's binary
	Runs        int    // of each scenario
	Peer        string
	MaxDowntime time.Duration // allowed to both
	// Only is the number of the one scenario to run, from 1; 0 runs all.
	Only int
}

// scenario is one load.
type scenario struct {
	name string
	load workload.Load
}

// scenarios go from the best case of line granularity, one line a page, to its worst, every
// byte; the last is one that a link can keep up with.
var scenarios = []scenario{
	{"4096 pages, 1 line", workload.Load{VCPUs: 1, Pages: 4096, Lines: 1, Pattern: "seq"}},
	{"65536 pages, 1 line", workload.Load{VCPUs: 1, Pages: 65536, Lines: 1, Pattern: "seq"}},
	{"4096 pages, every byte", workload.Load{VCPUs: 1, Pages: 4096, Lines: 64, Pattern: "seq"}},
	{"65536 pages, 1 line, 50000/s", workload.Load{VCPUs: 1, Pages: 65536, Lines: 1, Pattern: "seq", Rate: 50000}},
}

// Scenarios is how many there are.
func Scenarios() int { return len(scenarios) }

// sample is one migration.
type sample struct {
	totalMS, downtimeMS, ownDowntimeMS float64
	bytesSent, bytesInDowntime         float64
	rounds                             float64
	converged                          bool
	mismatches                         uint64 // of both ends' checks
}

// Migrate measures live migrations of builtin:dirty between two processes over a Unix
// socket, beside the peer's of the same guest.
func Migrate(ctx context.Context, o MigrateOptions, progress Progress) (*Report, error) {
	r, err := newReport("migrate")
	if err != nil {
		return nil, err
	}
	m := migrator{MigrateOptions: o, report: r, progress: progress}
	if o.Peer != PeerNone {
		version, err := qemu.Version(ctx)
		if err != nil {
			return nil, fmt.Errorf("%w, or choose --peer none", err)
		}
		m.peerName = "QEMU " + version
		if o.Peer == PeerQEMUMultifd {
			m.peerName += " multifd"
		}
	}
	chosen := scenarios
	if o.Only > 0 {
		chosen = scenarios[o.Only-1 : o.Only]
	}
	m.total = len(chosen) * o.Runs
	for _, s := range chosen {
		if err := m.measure(ctx, s); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return r, nil
}

// migrator runs the scenarios one after the other.
type migrator struct {
	MigrateOptions
	peerName    string
	report      *Report
	progress    Progress
	done, total int
}

func (m *migrator) measure(ctx context.Context, s scenario) error {
	var ours, peer []sample
	for range m.Runs {
		one, err := m.inDir(func(dir string) (sample, error) { return m.fineline(ctx, dir, s.load) })
		if err != nil {
			return err
		}
		ours = append(ours, one)
		if m.Peer != PeerNone {
			one, err := m.inDir(func(dir string) (sample, error) { return m.qemu(ctx, dir, s.load, false) })
			if err != nil {
				return err
			}
			peer = append(peer, one)
		}
		m.done++
		m.progress(m.done, m.total)
	}
	var counted []sample
	if m.Peer != PeerNone {
		one, err := m.inDir(func(dir string) (sample, error) { return m.qemu(ctx, dir, s.load, true) })
		if err != nil {
			return err
		}
		counted = append(counted, one)
	}
	m.addRows(s.name, ours, peer, counted)
	return nil
}

// addRows turns samples into figures. counted is the peer's run that was held to count.
func (m *migrator) addRows(name string, ours, peer, counted []sample) {
	const mib = 1 << 20
	row := func(what, unit, note string, of func(sample) float64, peer []sample) {
		m.report.add(name+": "+what, unit, m.peerName+note, pick(ours, of), pick(peer, of))
	}
	row("total", "ms", "", func(s sample) float64 { return s.totalMS }, peer)
	row("downtime", "ms", "", func(s sample) float64 { return s.downtimeMS }, peer)
	if len(peer) > 0 {
		row("downtime", "ms", ", as its source reports it", func(s sample) float64 { return s.ownDowntimeMS }, peer)
	}
	row("sent", "MiB", ", RAM only", func(s sample) float64 { return s.bytesSent / mib }, peer)
	row("sent in the downtime", "MiB", ", RAM only, one run", func(s sample) float64 { return s.bytesInDowntime / mib }, counted)
	row("rounds", "", "", func(s sample) float64 { return s.rounds }, peer)
	row("gave up the downtime goal", "share", "", func(s sample) float64 {
		if s.converged {
			return 0
		}
		return 1
	}, peer)
	row("mismatches", "lines", "", func(s sample) float64 { return float64(s.mismatches) }, peer)
}

func pick(samples []sample, of func(sample) float64) []float64 {
	var out []float64
	for _, s := range samples {
		out = append(out, of(s))
	}
	return out
}

// inDir gives fn a directory for its sockets. Its name has no comma, at which QEMU splits.
func (m *migrator) inDir(fn func(dir string) (sample, error)) (sample, error) {
	dir, err := os.MkdirTemp("", "fineline-bench-")
	if err != nil {
		return sample{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	return fn(dir)
}

// fineline migrates once between two of our processes.
func (m *migrator) fineline(ctx context.Context, dir string, load workload.Load) (_ sample, err error) {
	kernel, err := extract(dir, workload.Name)
	if err != nil {
		return sample{}, err
	}
	source, err := workload.StartSource(ctx, m.Exe, dir, kernel, migrateGuestMiB, load)
	if err != nil {
		return sample{}, err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	destination, err := workload.StartDestination(ctx, m.Exe, dir)
	if err != nil {
		return sample{}, err
	}
	defer func() { err = errors.Join(err, destination.Close()) }()
	if _, err := source.Guest.AwaitSteps(ctx, load.Pages*load.Lines); err != nil {
		return sample{}, err
	}
	r, err := source.Migrate(ctx, api.MigrationRequest{
		DestinationURL: destination.Incoming, DowntimeMS: m.MaxDowntime.Milliseconds(),
		TimeoutS: int64(migratePatience / time.Second), TimeoutStrategy: "Ignore",
	}, func(migration.Progress) {})
	if err != nil {
		return sample{}, err
	}
	if r.Status != migration.StatusCompleted {
		return sample{}, fmt.Errorf("the migration %s: %s", r.Status, r.Error)
	}
	check, err := destination.Guest.Check(ctx)
	if err != nil {
		return sample{}, err
	}
	return sample{
		totalMS: r.TotalMS, downtimeMS: r.DowntimeMS, ownDowntimeMS: r.DowntimeMS,
		bytesSent: float64(r.BytesSent), bytesInDowntime: float64(r.BytesInDowntime),
		rounds: float64(len(r.Rounds)), converged: r.Converged, mismatches: check.Mismatches,
	}, check.Err()
}

// qemu migrates once between two of QEMU's processes.
func (m *migrator) qemu(ctx context.Context, dir string, load workload.Load, count bool) (_ sample, err error) {
	kernel, err := extract(dir, workload.Name)
	if err != nil {
		return sample{}, err
	}
	// -S: the guest says its first word when there is somebody to hear it.
	source, err := startQEMU(ctx, dir, "source", kernel, load, "-S")
	if err != nil {
		return sample{}, err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	destination, err := startQEMU(ctx, dir, "destination", kernel, load, "-incoming", "defer")
	if err != nil {
		return sample{}, err
	}
	defer func() { err = errors.Join(err, destination.Close()) }()
	if err := source.Execute(ctx, "cont", nil, nil); err != nil {
		return sample{}, err
	}
	if err := source.guest.AwaitReady(ctx); err != nil {
		return sample{}, err
	}
	if _, err := source.guest.AwaitSteps(ctx, load.Pages*load.Lines); err != nil {
		return sample{}, err
	}
	r, err := qemu.Migrate(ctx, source.Monitor, destination.Monitor, qemu.MigrationOptions{
		URI: "unix:" + filepath.Join(dir, "migration.sock"), MaxDowntime: m.MaxDowntime,
		Patience: migratePatience, Multifd: m.Peer == PeerQEMUMultifd, CountDowntime: count,
	})
	if err != nil {
		return sample{}, err
	}
	check, err := destination.guest.Check(ctx)
	if err != nil {
		return sample{}, err
	}
	return sample{
		totalMS: r.TotalMS, downtimeMS: r.DowntimeMS, ownDowntimeMS: r.OwnDowntimeMS,
		bytesSent: float64(r.BytesSent), bytesInDowntime: float64(r.BytesInDowntime),
		rounds: float64(r.Rounds), converged: r.Converged, mismatches: check.Mismatches,
	}, check.Err()
}

// qemuMachine is a QEMU and the conversation with the guest in it.
type qemuMachine struct {
	*qemu.VM
	guest *workload.Guest
}

func startQEMU(ctx context.Context, dir, name, kernel string, load workload.Load, args ...string) (*qemuMachine, error) {
	serial := filepath.Join(dir, name+".serial")
	args = append(append(qemu.MicroVM(), "-m", fmt.Sprintf("%dM", migrateGuestMiB), "-smp", fmt.Sprint(load.VCPUs),
		"-kernel", kernel, "-append", load.Cmdline(), "-serial", "unix:"+serial+",server=on,wait=off"), args...)
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

func (q *qemuMachine) Close() error { return errors.Join(q.guest.Close(), q.VM.Close()) }
