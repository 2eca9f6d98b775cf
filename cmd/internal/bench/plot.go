package bench

import (
	"context"
	"slices"

	"github.com/fineline-vmm/fineline/cmd/internal/qemu"
	"github.com/fineline-vmm/fineline/cmd/internal/view"
	"github.com/fineline-vmm/fineline/coherence/diff"
	"github.com/fineline-vmm/fineline/migration"
)

// Plot makes one migration of ours and one of the first peer's, and draws both as SVG.
func Plot(ctx context.Context, o MigrateOptions) (string, error) {
	chosen, err := choose(migrateScenarios, o.Only)
	if err != nil {
		return "", err
	}
	s := chosen[0]
	m := migrator{MigrateOptions: o}
	if err := m.open(ctx, "migrate"); err != nil {
		return "", err
	}
	settings, err := m.settings(&s)
	if err != nil {
		return "", err
	}
	ours, err := inDir(func(dir string) (record, error) { return m.fineline(ctx, dir, s, extras{}) })
	if err != nil {
		return "", err
	}
	p := view.Plot{Title: s.title + m.way(&s), Moves: []view.Move{ourPicture(ours.result)}}
	if len(settings) > 0 {
		// Latencies of single requests are only in the run that is traced.
		theirs, err := m.peer(ctx, s, settings[0], extras{rounds: true, count: settings[0].Postcopy})
		if err != nil {
			return "", err
		}
		p.Moves = append(p.Moves, peerPicture(m.peerName(settings[0]), theirs))
	}
	return p.SVG(), nil
}

func ourPicture(r *migration.Result) view.Move {
	m := view.Move{Name: "Fineline", TotalMS: r.TotalMS, DowntimeMS: r.DowntimeMS}
	began := 0.0 // the rounds follow the phases before them
	for _, p := range r.Phases {
		if p.Phase == "start" || p.Phase == "preflight" {
			began += p.MS
		}
		if isDowntime(p.Phase) {
			m.Phases = append(m.Phases, view.Phase{Name: p.Phase, MS: p.MS})
		}
	}
	for _, round := range r.Rounds {
		m.Rounds = append(m.Rounds, view.Round{
			StartMS: began, MS: round.MS, Bytes: round.Bytes, Pages: round.Pages, Lines: round.Lines, Paused: round.Paused,
		})
		began += round.MS
	}
	m.FaultsUS = faultsUS(&r.Faults)
	if r.Faults.Count > 0 {
		m.Marks = []view.Mark{{Name: "p50", US: r.Faults.P50US}, {Name: "p99", US: r.Faults.P99US}, {Name: "max", US: r.Faults.MaxUS}}
	}
	return m
}

// faultsUS takes each page request for as long as its bucket says at most, a quarter of an octave too long.
func faultsUS(f *migration.Faults) (all []float64) {
	for _, b := range f.Buckets {
		all = append(all, slices.Repeat([]float64{b.UpToUS}, int(min(b.Count, f.Count)))...)
	}
	return all
}

// isDowntime tells the phases in which the guest runs nowhere.
func isDowntime(phase string) bool {
	return phase == "stop-copy" || phase == "state" || phase == "commit"
}

func peerPicture(name string, r record) view.Move {
	m := view.Move{Name: name, TotalMS: r.totalMS, DowntimeMS: r.downtimeMS, FaultsUS: r.faultsUS}
	for _, p := range r.peer.Passes {
		m.Rounds = append(m.Rounds, view.Round{
			StartMS: p.StartMS, MS: p.MS, Bytes: p.Bytes, Pages: p.Pages, Paused: p.Paused,
			Lines: p.Pages * diff.PageLines, // it knows nothing smaller
		})
	}
	m.Phases = peerPhases(r.peer)
	return m
}

func peerPhases(r *qemu.Migration) []view.Phase {
	if r.SourceMS == 0 {
		return []view.Phase{{Name: "switch", MS: r.DowntimeMS}}
	}
	return []view.Phase{{Name: "source sends", MS: r.SourceMS}, {Name: "destination starts", MS: r.DowntimeMS - r.SourceMS}}
}
