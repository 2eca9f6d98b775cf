package view

import (
	"strings"
	"testing"

	"github.com/fineline-vmm/fineline/migration"
)

// row returns the value of a row, or "".
func row(r *migration.Result, name string) string {
	for _, row := range Rows(r) {
		if row.Name == name {
			return row.Value
		}
	}
	return ""
}

// TestRowsOfKeptSource: who keeps the source reads what that is, and how to end it, in each mode.
func TestRowsOfKeptSource(t *testing.T) {
	for _, postcopy := range []bool{false, true} {
		r := &migration.Result{Status: migration.StatusCompleted, Converged: true, SwitchedToPostcopy: postcopy}
		if got := row(r, "source"); got != "" {
			t.Errorf("a source that ends: %q", got)
		}
		r.KeepSource = true
		if got := row(r, "source"); !strings.Contains(got, "checkpoints") || !strings.Contains(got, "`fineline stop`") {
			t.Errorf("a source that is kept: %q", got)
		}
	}
}

// TestRowOfPrediction: what was predicted to no end is seen beside what was not.
func TestRowOfPrediction(t *testing.T) {
	r := &migration.Result{Status: migration.StatusCompleted, SwitchedToPostcopy: true}
	if got := row(r, "prediction"); got != "" {
		t.Errorf("without a predictor: %q", got)
	}
	r.Faults = migration.Faults{Prefetched: 40, PredictedStored: 30, PredictedRight: 3, PredictedWrong: 7}
	if got, want := row(r, "prediction"), "30 of 40 pages came before anybody waited; 3 of 10 misses had been named"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestRowOfProcessorTime(t *testing.T) {
	r := &migration.Result{Status: migration.StatusCompleted}
	if got := row(r, "processor time"); got != "" {
		t.Errorf("not known: %q", got)
	}
	r.SourceCPUMS = 12.34
	if got, want := row(r, "processor time"), "12.3 ms at the source, without its vCPUs"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
