package bench

import (
	"context"
	"fmt"
	"slices"

	"github.com/fineline-vmm/fineline/cmd/internal/barefault"
	"github.com/fineline-vmm/fineline/cmd/internal/qemu"
)

const (
	barePages = 2000
	bareName  = "bare userfaultfd copy"
)

// Postcopy measures post-copies of a guest that passes over its working set: how soon and how fast it runs, what a
// missing page costs beside a bare userfaultfd copy, and how many pages it had to wait for. Peers
// are those of QEMU's settings that are post-copy.
func Postcopy(ctx context.Context, o MigrateOptions, progress Progress) (*Report, error) {
	chosen, err := choose(postcopyScenarios, o.Only)
	if err != nil {
		return nil, err
	}
	if o.Peers, err = postcopyPeers(o.Peers); err != nil {
		return nil, err
	}
	m := migrator{MigrateOptions: o, progress: progress}
	if err := m.open(ctx, "postcopy"); err != nil {
		return nil, err
	}
	m.total = len(chosen) * o.Runs
	for _, s := range chosen {
		if err := m.measurePostcopy(ctx, s); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	return m.report, m.addLocal(ctx)
}

// addLocal says what a vCPU's fault costs before any network. It comes last: it runs a machine in this process,
// which must not start others afterwards (see Exits).
func (m *migrator) addLocal(ctx context.Context) error {
	bare, err := bareUS()
	if err != nil {
		return err
	}
	local, err := localFaultUS(ctx)
	if err != nil {
		return err
	}
	for _, q := range []struct {
		name string
		q    float64
	}{{"p50", 0.5}, {"p99", 0.99}} {
		r := m.report.add("a vCPU's missing page filled in this process, whole cycle "+q.name, "µs", bareName+" "+q.name,
			[]float64{quantile(local, q.q)}, []float64{quantile(bare, q.q)})
		r.Spread = Spread{slices.Min(local), slices.Max(local), slices.Min(bare), slices.Max(bare)}
	}
	return nil
}

// postcopyPeers are the names of settings that are post-copy.
func postcopyPeers(names []string) ([]string, error) {
	if slices.Contains(names, PeerNone) {
		return names, nil
	}
	var all []string
	for _, s := range postcopySettings(qemu.Settings(mib)) {
		all = append(all, s.Name)
	}
	if slices.Contains(names, PeerAll) {
		return all, nil
	}
	for _, name := range names {
		if !slices.Contains(all, name) {
			return nil, fmt.Errorf("peer %q is no post-copy: choose of %v", name, all)
		}
	}
	return names, nil
}

// measurePostcopy measures the bare round trip before and after, on the same busy or idle machine.
func (m *migrator) measurePostcopy(ctx context.Context, s Scenario) error {
	before, err := bareUS()
	if err != nil {
		return err
	}
	ours, rivals, err := m.run(ctx, s, extras{steps: true})
	if err != nil {
		return err
	}
	after, err := bareUS()
	if err != nil {
		return err
	}
	m.addPostcopyRows(s, ours, rivals, append(before, after...))
	return nil
}

// bareUS are bare round trips in microseconds.
func bareUS() ([]float64, error) {
	all, err := barefault.Measure(barePages)
	var us []float64
	for _, d := range all {
		us = append(us, microseconds(d))
	}
	return us, err
}

// postcopyRows are the figures beside QEMU's.
var postcopyRows = []row{
	{what: "switch to resume", unit: "ms", of: func(s sample) float64 { return s.downtimeMS }, ranked: true},
	{what: "total", unit: "ms", of: func(s sample) float64 { return s.totalMS }, ranked: true},
	{what: "all pages there after the resume", unit: "ms", of: func(s sample) float64 { return s.afterResumeMS }, ranked: true},
	{what: "sent", unit: "MiB", note: ", RAM only", of: func(s sample) float64 { return s.bytesSent / mib }, ranked: true},
	{what: "guest's steps before", unit: "M/s", of: func(s sample) float64 { return s.before / 1e6 }},
	{what: "guest's steps in the first second after the resume", unit: "M/s", of: func(s sample) float64 { return s.after / 1e6 }},
	{what: "page request p50", unit: "µs", note: ", from its trace, one run", of: func(s sample) float64 { return s.p50US }, counted: true, ranked: true},
	{what: "page request p99", unit: "µs", note: ", from its trace, one run", of: func(s sample) float64 { return s.p99US }, counted: true, ranked: true},
	{what: "page request, the longest", unit: "µs", note: ", from its trace, one run", of: func(s sample) float64 { return s.maxUS }, counted: true},
	{what: "CPU beside vCPUs, source", unit: "ms", of: func(s sample) float64 { return s.source.cpuMS }, ranked: true},
	{what: "CPU beside vCPUs, destination", unit: "ms", of: func(s sample) float64 { return s.destination.cpuMS }, ranked: true},
	{what: "peak memory beyond guest RAM, source", unit: "MiB", of: func(s sample) float64 { return s.source.ownMiB }, ranked: true},
	{what: "peak memory beyond guest RAM, destination", unit: "MiB", of: func(s sample) float64 { return s.destination.ownMiB }, ranked: true},
	{what: "mismatches", unit: "lines", of: func(s sample) float64 { return float64(s.mismatches) }},
}

// missRows are ours alone. The use of a predicted page that is there is not seen, a miss is.
var missRows = []row{
	{what: "misses of pages that had come and were not in place", unit: "pages", of: func(s sample) float64 { return s.stocked }},
	{what: "page request over the connection p50", unit: "µs", of: func(s sample) float64 { return s.asked50US }},
	{what: "page request over the connection p99", unit: "µs", of: func(s sample) float64 { return s.asked99US }},
	{what: "predicted pages asked for", unit: "pages", of: func(s sample) float64 { return s.predicted }},
	{what: "predicted pages stored before anybody waited", unit: "pages", of: func(s sample) float64 { return s.stored }},
	{what: "misses of predicted pages that were on their way", unit: "pages", of: func(s sample) float64 { return s.caught }},
	{what: "misses that the predictor had named", unit: "pages", of: func(s sample) float64 { return s.right }},
	{what: "misses that the predictor had not named", unit: "pages", of: func(s sample) float64 { return s.wrong }},
}

// The share of the working set that was asked for, which Hines and Gopalan (VEE 2009) report as 17 to 21 % with
// their pre-paging.
const publishedFaultShare = 17

func (m *migrator) addPostcopyRows(s Scenario, ours []sample, rivals []rival, bare []float64) {
	name := s.title + m.way(&s)
	share := row{
		what: "network faults", unit: "% of the working set", ranked: true,
		of: func(x sample) float64 { return 100 * x.requests / float64(s.load.Pages) },
	}
	for _, r := range append(slices.Clone(postcopyRows), share) {
		if len(rivals) == 0 {
			m.report.add(name+": "+r.what, r.unit, "", pick(ours, r.of), nil)
		}
		m.addRow(name, r, ours, rivals)
	}
	m.report.add(name+": "+share.what, share.unit, "published (VEE 2009)", pick(ours, share.of), []float64{publishedFaultShare})
	for _, r := range missRows {
		m.report.add(name+": "+r.what, r.unit, "", pick(ours, r.of), nil)
	}
	for _, q := range []struct {
		name string
		q    float64
		of   func(sample) float64
	}{{"p50", 0.5, func(x sample) float64 { return x.p50US }}, {"p99", 0.99, func(x sample) float64 { return x.p99US }}} {
		limit := m.report.add(name+": page request "+q.name, "µs", bareName+" "+q.name, pick(ours, q.of), []float64{quantile(bare, q.q)})
		limit.Spread.PeerMin, limit.Spread.PeerMax = slices.Min(bare), slices.Max(bare)
	}
	if m.KeepSource {
		m.addKeptRows(name, ours)
	}
}
