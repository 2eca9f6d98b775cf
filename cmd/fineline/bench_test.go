package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/fineline-vmm/fineline/cmd/internal/bench"
)

// bench runs a benchmark once, of the smallest guest and without a peer.
func (h *house) bench(name string, args ...string) (report bench.Report) {
	h.t.Helper()
	args = append([]string{"bench", name, "--json", "--peer", "none", "--runs", "1", "--only", "small-64m"}, args...)
	cmd := exec.CommandContext(h.ctx, program(h.t), args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+h.dir)
	out, err := cmd.Output()
	if err != nil {
		h.t.Fatalf("%v: %s", err, out)
	}
	if err := json.Unmarshal(out, &report); err != nil {
		h.t.Fatalf("%v in %s", err, out)
	}
	return report
}

// TestBenchMigrate is one tiny run through a link, without a peer, and a picture.
func TestBenchMigrate(t *testing.T) {
	if slow() {
		t.Skip("two migrations that show nothing of the emulated machine")
	}
	h := newHouse(t)
	picture := h.path("migration.svg")
	report := h.bench("migrate", "--link", "2Gbit", "--mode", "precopy", "--plot", picture)
	found := map[string]float64{}
	for _, r := range report.Results {
		_, what, _ := strings.Cut(r.Name, ": ")
		found[what] = r.Ours
		if !strings.Contains(r.Name, "limited by a relay to 2 Gbit/s") {
			t.Errorf("the row %q does not say how it was limited", r.Name)
		}
	}
	for _, what := range []string{"total", "downtime", "sent", "CPU beside vCPUs, source", "peak memory beyond guest RAM, destination"} {
		if found[what] <= 0 {
			t.Errorf("%s: %v", what, found[what])
		}
	}
	// 2 Gbit/s is 250 bytes a microsecond, and no link is faster than it is.
	if least := found["sent"] * (1 << 20) / 250e3; found["total"] < least {
		t.Errorf("%v MiB in %v ms: the link would take %v ms", found["sent"], found["total"], least)
	}
	svg, err := os.ReadFile(picture)
	if err != nil || !strings.Contains(string(svg), "downtime") {
		t.Errorf("the picture: %v: %s", err, svg)
	}
}

// TestBenchKeptSource is one tiny run.
func TestBenchKeptSource(t *testing.T) {
	if slow() {
		t.Skip("a post-copy and some checkpoints that show nothing of the emulated machine")
	}
	h := newHouse(t)
	report := h.bench("postcopy", "--keep-source")
	found := map[string]bench.Result{}
	for _, r := range report.Results {
		_, what, _ := strings.Cut(r.Name, ": ")
		found[what] = r
	}
	if r := found["guest's steps beside checkpoints"]; r.Ours <= 0 || r.Peer <= 0 {
		t.Errorf("%+v", r)
	}
	for _, what := range []string{"from checkpoint to checkpoint", "pause for a checkpoint", "sent for a checkpoint"} {
		if found[what].Ours <= 0 {
			t.Errorf("%s: %+v", what, found[what])
		}
	}
}

func TestBenchFlags(t *testing.T) {
	for _, args := range [][]string{
		{"migrate", "--peer", "xen"},
		{"migrate", "--link", "fast"},
		{"migrate", "--link-delay", "1ms"},
		{"migrate", "--mode", "magic"},
		{"migrate", "--max-downtime", "1us"},
		{"postcopy", "--streams", "-1"},
		{"migrate", "--runs", "0"},
	} {
		cmd := exec.CommandContext(t.Context(), program(t), append([]string{"bench"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err == nil || cmd.ProcessState.ExitCode() != 2 {
			t.Errorf("%v: %v: %s", args, err, out)
		}
	}
}

func TestBitsPerSecond(t *testing.T) {
	for text, want := range map[string]uint64{"1Gbit": 1e9, "100Mbit": 1e8, "2.5Gbit": 2.5e9, "9kbit": 9000, "8000bit": 8000} {
		var b bitsPerSecond
		if err := b.Set(text); err != nil || uint64(b) != want {
			t.Errorf("Set(%q) = %d, %v", text, b, err)
		}
		if text != "8000bit" && b.String() != text {
			t.Errorf("%q is written %q", text, b.String())
		}
	}
	for _, text := range []string{"", "1", "1bit", "-1Gbit", "NaNGbit", "9999Gbit", "1Gb"} {
		if err := new(bitsPerSecond).Set(text); err == nil {
			t.Errorf("Set(%q) succeeds", text)
		}
	}
}
