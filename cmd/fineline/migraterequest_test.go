package main

import (
	"path/filepath"
	"testing"
)

// TestPathsAreTheCallers: the VMM that looks for a path may have another directory.
func TestPathsAreTheCallers(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	f := &migrateFlags{to: "unix:x.mig"}
	r, err := f.recoverRequest(newMigrateCommand())
	if want := "unix:" + filepath.Join(dir, "x.mig"); err != nil || r.DestinationURL != want {
		t.Errorf("recover at %q, %v; want %q", r.DestinationURL, err, want)
	}
	f.to = "tcp:192.0.2.7:7171"
	if r, err := f.recoverRequest(newMigrateCommand()); err != nil || r.DestinationURL != f.to {
		t.Errorf("recover at %q, %v; want %q", r.DestinationURL, err, f.to)
	}
}
