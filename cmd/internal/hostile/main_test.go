package main

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
)

// TestUsage: what was typed wrong is told from what went wrong, and nothing that was typed is ignored.
func TestUsage(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // what is taken for right, and is not, does not last
	at := filepath.Join(t.TempDir(), "sock")
	for want, lines := range map[int][]string{
		0: {"list"},
		1: {"source SOCK " + filepath.Join(t.TempDir(), "absent") + " any"},
		2: {
			"", "bogus", "list surplus", "middle SOCK to 1", "middle SOCK to 1 20 forged", "middle SOCK to 1 20 forge surplus",
			"middle SOCK to one 20", "middle SOCK to 1 none", "destination SOCK nobody",
		},
	} {
		for _, line := range lines {
			err := run(ctx, strings.Fields(strings.ReplaceAll(line, "SOCK", at)))
			if got := exitCode(err); got != want {
				t.Errorf("hostile %s: exit code %d (%v), want %d", line, got, err, want)
			}
		}
	}
}
