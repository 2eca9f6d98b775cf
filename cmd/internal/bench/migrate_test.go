package bench

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/cmd/internal/qemu"
	"github.com/fineline-vmm/fineline/cmd/internal/relay"
	"github.com/fineline-vmm/fineline/migration"
)

func TestMigrateRows(t *testing.T) {
	ours := []sample{{totalMS: 10, downtimeMS: 4, bytesInDowntime: 1 << 20, converged: true}}
	rivals := []rival{
		{name: "slow", runs: []sample{{totalMS: 40, downtimeMS: 8, ownDowntimeMS: 3}}, counted: sample{totalMS: 99, bytesInDowntime: 2 << 20}},
		{name: "fast", runs: []sample{{totalMS: 20, downtimeMS: 9, converged: true}}, counted: sample{bytesInDowntime: 8 << 20}},
		{name: "post", setting: qemu.Setting{Postcopy: true}, runs: []sample{{totalMS: 5, downtimeMS: 1, requests: 12}}},
	}
	m := migrator{report: &Report{}}
	m.addRows("load", ours, rivals)
	rows := map[string]Result{}
	for _, r := range m.report.Results {
		rows[r.Name+" "+r.PeerName] = r
	}
	for key, want := range map[string]struct {
		ours, peer float64
		best       bool
	}{
		"load: total slow":    {10, 40, false},
		"load: total fast":    {10, 20, true},
		"load: total post":    {10, 5, false}, // has no rival of its kind
		"load: downtime slow": {4, 8, true},
		"load: downtime slow, as its source reports it":      {0, 3, false},
		"load: sent in the downtime slow, RAM only, one run": {1, 2, true},
		"load: gave up the downtime goal slow":               {0, 1, false},
		"load: pages asked for post":                         {0, 12, false},
	} {
		if r, ok := rows[key]; !ok || r.Ours != want.ours || r.Peer != want.peer || r.Best != want.best {
			t.Errorf("%s: %+v, want %+v", key, r, want)
		}
	}
	if _, ok := rows["load: pages asked for slow"]; ok {
		t.Error("a pre-copy has a row of post-copy")
	}
	m.addRows("other", []sample{{totalMS: 60}}, rivals)
	total := m.report.Extremes[0]
	if total != (Extreme{Name: "total", Best: 0.5, BestWhere: "load", Worst: 3, WorstWhere: "other"}) {
		t.Errorf("extremes: %+v", total)
	}
	var out strings.Builder
	if err := m.report.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"fast *\n", "* the best of", "total: 0.5 (load), 3 (other)"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}

	alone := migrator{report: &Report{}}
	alone.addRows("load", ours, nil)
	for _, r := range alone.report.Results {
		if r.PeerName != "" || r.Ratio != 0 || r.Best {
			t.Errorf("without a peer: %+v", r)
		}
	}
	if len(alone.report.Results) == 0 {
		t.Error("without a peer there are no rows")
	}
}

func TestPostcopyRows(t *testing.T) {
	s := Scenario{title: "load", load: pattern("seq", 200, 1)}
	ours := []sample{{requests: 20, p50US: 150, p99US: 300, before: 4e6, after: 2e6}}
	ours[0].of(&migration.Result{Faults: migration.Faults{
		Count: 20, P50US: 150, P99US: 300, Prefetched: 170, PredictedStored: 140, PrefetchHits: 9, PredictedRight: 12, PredictedWrong: 8,
	}})
	m := migrator{report: &Report{}}
	m.addPostcopyRows(s, ours, []rival{{name: "post", setting: qemu.Setting{Postcopy: true}, runs: []sample{{requests: 100}}}},
		[]float64{100, 90, 120, 400})
	find := func(name, peer string) Result {
		at := slices.IndexFunc(m.report.Results, func(r Result) bool { return r.Name == name && r.PeerName == peer })
		if at < 0 {
			t.Fatalf("no row %s, %s in %+v", name, peer, m.report.Results)
		}
		return m.report.Results[at]
	}
	if r := find("load: page request p50", bareName+" p50"); r.Ours != 150 || r.Peer != 100 || r.Ratio != 1.5 || r.Spread.PeerMax != 400 {
		t.Errorf("%+v", r)
	}
	if r := find("load: page request p99", bareName+" p99"); r.Ours != 300 || r.Peer != 400 {
		t.Errorf("%+v", r)
	}
	if r := find("load: network faults", "post"); r.Ours != 10 || r.Peer != 50 {
		t.Errorf("%+v", r)
	}
	for what, want := range map[string]float64{
		"predicted pages asked for": 170, "predicted pages stored before anybody waited": 140,
		"misses of predicted pages that were on their way": 9,
		"misses that the predictor had named":              12, "misses that the predictor had not named": 8,
	} {
		if r := find("load: "+what, ""); r.Ours != want {
			t.Errorf("%+v, want %v", r, want)
		}
	}
}

func TestQuantile(t *testing.T) {
	sample := []float64{5, 1, 4, 2, 3}
	for q, want := range map[float64]float64{0: 1, 0.2: 1, 0.5: 3, 0.99: 5, 1: 5} {
		if got := quantile(sample, q); got != want {
			t.Errorf("quantile(%v) = %v, want %v", q, got, want)
		}
	}
}

func TestChoose(t *testing.T) {
	some, err := choose(migrateScenarios, []string{"large-8g", "2"})
	if err != nil || len(some) != 2 || some[0].memoryMiB != 8192 || some[1].Name != "hot-65536" {
		t.Errorf("choose() = %+v, %v", some, err)
	}
	all, err := choose(migrateScenarios, nil)
	if err != nil || len(all) == 0 || slices.ContainsFunc(all, func(s Scenario) bool { return s.extra }) {
		t.Errorf("choose() = %+v, %v", all, err)
	}
	for _, wrong := range []string{"0", "99", "hot", ""} {
		if _, err := choose(migrateScenarios, []string{wrong}); err == nil || !strings.Contains(err.Error(), "hot-4096") {
			t.Errorf("choose(%q): %v", wrong, err)
		}
	}
	for _, all := range [][]Scenario{migrateScenarios, postcopyScenarios} {
		for _, s := range all {
			if s.load.Pages*4096 >= s.memoryBytes() || s.title == "" {
				t.Errorf("%s does not fit: %+v", s.Name, s)
			}
		}
	}
}

func TestPostcopyPeers(t *testing.T) {
	all, err := postcopyPeers([]string{PeerAll})
	if err != nil || len(all) != 2 {
		t.Errorf("all: %v, %v", all, err)
	}
	if _, err := postcopyPeers([]string{"qemu"}); err == nil {
		t.Error("pre-copy passes as post-copy")
	}
	if none, err := postcopyPeers([]string{PeerNone}); err != nil || len(none) != 1 {
		t.Errorf("none: %v, %v", none, err)
	}
}

// TestPatience: a slow way gets the time it needs to be found out.
func TestPatience(t *testing.T) {
	s := Scenario{load: pattern("seq", 25600, 1)} // 100 MiB
	for _, c := range []struct {
		m    Move
		want time.Duration
	}{
		{Move{}, 4 * time.Second},
		{Move{MaxBandwidthBytesPerS: 100 << 20}, 7 * time.Second},
		{Move{MaxBandwidthBytesPerS: 100 << 20, Link: &relay.Link{BitsPerS: 8 * 50 << 20}}, 10 * time.Second},
		{Move{MaxBandwidthBytesPerS: 50 << 20, Link: &relay.Link{BitsPerS: 8 * 100 << 20}}, 10 * time.Second},
	} {
		if got := c.m.patience(&s); got != c.want {
			t.Errorf("%+v: %v, want %v", c.m, got, c.want)
		}
	}
	s.bandwidth = 10 << 20
	if got := (&Move{}).bandwidth(&s); got != 10<<20 {
		t.Errorf("bandwidth %d", got)
	}
	m := Move{MaxBandwidthBytesPerS: 1 << 20, Link: &relay.Link{BitsPerS: 1e9, Delay: time.Millisecond}}
	if got, want := m.way(&s), ", limited by a relay to 1 Gbit/s and 1ms, 1 MiB/s allowed"; got != want || m.bandwidth(&s) != 1<<20 {
		t.Errorf("way %q, want %q", got, want)
	}
}

func TestAfterResume(t *testing.T) {
	r := migration.Result{TotalMS: 100, Phases: []migration.PhaseTime{
		{Phase: "precopy", MS: 10}, {Phase: "commit", MS: 5}, {Phase: "running", MS: 80},
	}}
	if got := afterResume(&r); got != 85 {
		t.Errorf("afterResume() = %v", got)
	}
}

// counter is a guest of which each question costs a step.
type counter struct {
	steps uint64
	err   error
}

func (c *counter) Steps(context.Context) (uint64, error) {
	c.steps++
	return c.steps, c.err
}

func TestCountSteps(t *testing.T) {
	running := make(chan struct{})
	asked := &counter{}
	s := countSteps(t.Context(), asked, time.Millisecond, func(context.Context) error { close(running); return nil })
	<-running
	if rate, err := s.rateWhen(true); err != nil || rate <= 0 || asked.steps != 2 {
		t.Errorf("rate %v, %v, asked %d times", rate, err, asked.steps)
	}
	never := countSteps(t.Context(), asked, time.Millisecond, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	if rate, err := never.rateWhen(false); err != nil || rate != 0 {
		t.Errorf("a guest that never ran: rate %v, %v", rate, err)
	}
	failed := errors.New("the guest is gone")
	broken := countSteps(t.Context(), &counter{err: failed}, time.Millisecond, func(context.Context) error { return nil })
	if _, err := broken.rateWhen(true); !errors.Is(err, failed) {
		t.Errorf("rateWhen() = %v", err)
	}
}
