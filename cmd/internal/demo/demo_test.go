package demo

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/fineline-vmm/fineline/cmd/internal/workload"
	"github.com/fineline-vmm/fineline/migration"
)

// TestNotATerminal: every round is one line, with its last numbers.
func TestNotATerminal(t *testing.T) {
	file, err := os.Create(t.TempDir() + "/stderr")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var out bytes.Buffer
	s := Terminal(&out, file)
	s.Step("step %d", 1)
	for _, p := range []migration.Progress{
		{Phase: "preflight"},
		{Round: 1, RoundPages: 100, BytesSent: 10},
		{Round: 1, RoundPages: 100, BytesSent: 400},
		{Round: 2, RoundPages: 7, BytesSent: 500},
	} {
		s.Progress(p)
	}
	s.Settled()
	s.Settled()
	want := "· step 1\n    round 1: 100 pages, 400 B sent so far\n    round 2: 7 pages, 500 B sent so far\n"
	if out.String() != want {
		t.Errorf("printed\n%s\nwant\n%s", out.String(), want)
	}
}

func TestPrint(t *testing.T) {
	r := &Report{
		Migration: &migration.Result{
			Status: migration.StatusCompleted, Converged: true, TotalMS: 12, DowntimeMS: 1.5,
			Rounds: []migration.Round{{Pages: 10, Bytes: 40960, RemainingPages: 2}, {Pages: 2, Bytes: 8192, Paused: true}},
		},
		After: workload.Check{Steps: 5},
	}
	var out bytes.Buffer
	if err := r.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"total", "downtime", "bytes sent", "rounds", "mismatches", "█", "guest paused"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}
