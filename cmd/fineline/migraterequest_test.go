package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"path/filepath"
	"testing"

	"github.com/fineline-vmm/fineline/cmd/internal/process"
	"github.com/fineline-vmm/fineline/migration"
	"github.com/fineline-vmm/fineline/vmm/api"
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

// TestEveryEndIsTold: a script finds an object on stdout, which says that the guest is here only where that is known.
func TestEveryEndIsTold(t *testing.T) {
	usage := usageError{errors.New("no such mode")}
	for _, c := range []struct {
		flags migrateFlags
		err   error
		want  migration.Result
	}{
		{migrateFlags{mode: "warp", granularity: "line"}, usage, migration.Result{Status: migration.StatusFailed, Mode: "warp", Granularity: "line"}},
		{migrateFlags{recover: true, mode: "precopy", granularity: "line"}, usage, migration.Result{Status: migration.StatusUnknown}},
		{migrateFlags{mode: "hybrid", granularity: "page"}, api.ErrStreamCut, migration.Result{Status: migration.StatusUnknown, Mode: "hybrid", Granularity: "page"}},
		{migrateFlags{mode: "postcopy", granularity: "line"}, process.ErrDetached, migration.Result{Status: migration.StatusUnknown, Mode: "postcopy", Granularity: "line"}},
		{migrateFlags{local: true, mode: "precopy", granularity: "line"}, process.ErrUntold, migration.Result{Status: migration.StatusUnknown, Mode: "local", Granularity: "none"}},
	} {
		c.flags.asJSON = true
		var out bytes.Buffer
		if err := c.flags.report(&out, c.err); !errors.Is(err, c.err) {
			t.Errorf("%v became %v", c.err, err)
		}
		var got migration.Result
		if err := json.Unmarshal(out.Bytes(), &got); err != nil || got.Status != c.want.Status ||
			got.Mode != c.want.Mode || got.Granularity != c.want.Granularity || got.Error != c.err.Error() {
			t.Errorf("%v: %v, %s", c.err, err, &out)
		}
	}
}
