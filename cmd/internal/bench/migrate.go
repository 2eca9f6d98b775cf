package bench

import (
	"context"
	"fmt"
	"slices"

	"github.com/fineline-vmm/fineline/cmd/internal/qemu"
)

// Peers of a migration that are not one of QEMU's settings.
const (
	PeerAll  = "all"
	PeerNone = "none"
)

// MigrateOptions say what to measure.
type MigrateOptions struct {
	Move
	Runs  int      // of each scenario
	Peers []string // settings of QEMU's, PeerAll or PeerNone
	Only  []string // names of scenarios; empty: all that are not extra
}

// Migrate measures live migrations of builtin:dirty between two processes, beside the peer's of the same guest.
func Migrate(ctx context.Context, o MigrateOptions, progress Progress) (*Report, error) {
	chosen, err := choose(migrateScenarios, o.Only)
	if err != nil {
		return nil, err
	}
	m := migrator{MigrateOptions: o, progress: progress}
	if err := m.open(ctx, "migrate"); err != nil {
		return nil, err
	}
	m.total = len(chosen) * o.Runs
	for _, s := range chosen {
		if err := m.measure(ctx, s); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	return m.report, nil
}

// migrator runs the scenarios one after the other.
type migrator struct {
	MigrateOptions
	version     string // of QEMU
	report      *Report
	progress    Progress
	done, total int
}

// open begins the report, and finds the peer.
func (m *migrator) open(ctx context.Context, name string) (err error) {
	if m.report, err = newReport(name); err != nil || m.alone() {
		return err
	}
	if m.version, err = qemu.Version(ctx); err != nil {
		return fmt.Errorf("%w, or choose --peer none", err)
	}
	return nil
}

func (m *migrator) alone() bool { return slices.Contains(m.Peers, PeerNone) }

// settings are QEMU's for a scenario.
func (m *migrator) settings(s *Scenario) ([]qemu.Setting, error) {
	if m.alone() {
		return nil, nil
	}
	if slices.Contains(m.Peers, PeerAll) {
		return qemu.Settings(s.hotBytes()), nil
	}
	var all []qemu.Setting
	for _, name := range m.Peers {
		one, err := qemu.Choose(name, s.hotBytes())
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

// rival is one of the peer's settings and its migrations of a scenario.
type rival struct {
	setting qemu.Setting
	name    string
	runs    []sample
	counted sample // the run that was disturbed to count
}

func (m *migrator) measure(ctx context.Context, s Scenario) error {
	ours, rivals, err := m.run(ctx, s, extras{})
	if err != nil {
		return err
	}
	m.addRows(s.title+m.way(&s), ours, rivals)
	return nil
}

// run migrates in turns, so that all meet the same noise.
func (m *migrator) run(ctx context.Context, s Scenario, x extras) (ours []sample, rivals []rival, err error) {
	settings, err := m.settings(&s)
	if err != nil {
		return nil, nil, err
	}
	for _, setting := range settings {
		rivals = append(rivals, rival{setting: setting, name: m.peerName(setting)})
	}
	for range m.Runs {
		one, err := inDir(func(dir string) (record, error) { return m.fineline(ctx, dir, s, x) })
		if err != nil {
			return nil, nil, err
		}
		ours = append(ours, one.sample)
		for i := range rivals {
			one, err := m.peer(ctx, s, rivals[i].setting, x)
			if err != nil {
				return nil, nil, err
			}
			rivals[i].runs = append(rivals[i].runs, one.sample)
		}
		m.done++
		m.progress(m.done, m.total)
	}
	for i := range rivals {
		x.count = true
		one, err := m.peer(ctx, s, rivals[i].setting, x)
		if err != nil {
			return nil, nil, err
		}
		rivals[i].counted = one.sample
	}
	return ours, rivals, nil
}

func (m *migrator) peer(ctx context.Context, s Scenario, setting qemu.Setting, x extras) (record, error) {
	r, err := inDir(func(dir string) (record, error) { return m.qemu(ctx, dir, s, setting, x) })
	if err != nil {
		return r, fmt.Errorf("%s: %w", setting.Name, err)
	}
	return r, nil
}

func (m *migrator) peerName(s qemu.Setting) string {
	name := "QEMU " + m.version
	if s.Label != "" {
		name += " " + s.Label
	}
	return name
}
