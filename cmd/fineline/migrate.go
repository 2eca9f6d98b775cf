package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fineline-vmm/fineline/cmd/internal/process"
	"github.com/fineline-vmm/fineline/cmd/internal/view"
	"github.com/fineline-vmm/fineline/migration"
	"github.com/fineline-vmm/fineline/vmm/api"
)

// migrateFlags are the flags of `fineline migrate`.
type migrateFlags struct {
	to, mode, granularity string
	maxDowntime, timeout  time.Duration
	maxBandwidth          sizeBytes
	baseline, compression string
	baselineBudget        sizeBytes
	streams               int
	timeoutStrategy       string
	tls                   tlsFlags
	local                 bool
	asJSON                bool
}

func newMigrateCommand() *cobra.Command {
	f := &migrateFlags{}
	c := clientCommand("migrate", "Move a running machine to another process", f.run)
	c.Use += " --to ADDR"
	c.Long = `Move a running machine to the process that waits with --incoming ADDR.

The guest runs on until what is left to send fits into --max-downtime; then it is
paused, moved and goes on there. Whatever fails before that leaves it running here.
Ctrl-C cancels.`
	fl := c.Flags()
	fl.StringVar(&f.to, "to", "", "where the destination listens: unix:PATH or tcp:HOST:PORT")
	fl.StringVar(&f.mode, "mode", "precopy", "precopy: memory moves before the guest; postcopy: after it; hybrid: before it, and what does not converge after it")
	fl.StringVar(&f.granularity, "granularity", "line", "what is sent again: line, the lines that have changed; or page")
	fl.StringVar(&f.baseline, "baseline", "auto", "what lines are compared with: twin, a copy; hash, an eighth of that; none; auto, both")
	fl.Var(&f.baselineBudget, "baseline-budget", "the most memory that baselines may take; 0: half of the guest's")
	fl.StringVar(&f.compression, "compress", "auto", "zstd: always; none; auto: while the link is slower than compressing")
	fl.IntVar(&f.streams, "streams", 0, "connections for pages; 0: one for each processor, at most 4")
	fl.DurationVar(&f.maxDowntime, "max-downtime", migration.DefaultMaxDowntime, "how long the guest may stand still")
	fl.Var(&f.maxBandwidth, "max-bandwidth", "bytes a second while the guest runs, for example 100M; 0: no limit")
	fl.DurationVar(&f.timeout, "timeout", migration.DefaultTimeout, "how long the migration may take")
	fl.StringVar(&f.timeoutStrategy, "timeout-strategy", "cancel", "then: cancel, or ignore (stop the guest and finish)")
	f.tls.add(fl)
	fl.BoolVar(&f.local, "local", false, "hand the memory over instead of copying it: to a process of this host, unix:PATH only")
	fl.BoolVar(&f.asJSON, "json", false, "print the result as one JSON object")
	return c
}

func (f *migrateFlags) request() (api.MigrationRequest, error) {
	modes := map[string]string{"precopy": "Precopy", "postcopy": "Postcopy", "hybrid": "Hybrid"}
	strategies := map[string]string{"cancel": "Cancel", "ignore": "Ignore"}
	r := api.MigrationRequest{
		DestinationURL: f.to, MemoryMode: modes[f.mode], Granularity: f.granularity,
		DowntimeMS: f.maxDowntime.Milliseconds(), TimeoutS: int64(f.timeout / time.Second),
		TimeoutStrategy: strategies[f.timeoutStrategy], MaxBandwidthBytesPerSecond: int64(f.maxBandwidth),
		Compression: f.compression, Baseline: f.baseline, BaselineBudgetBytes: int64(f.baselineBudget), Connections: f.streams, Local: f.local,
	}
	switch {
	case f.local && !strings.HasPrefix(f.to, "unix:"):
		return r, errors.New("--local hands the memory's files over, between two processes of one host: give --to unix:PATH")
	case r.MemoryMode == "":
		return r, fmt.Errorf("--mode %q: choose precopy, postcopy or hybrid", f.mode)
	case r.TimeoutStrategy == "":
		return r, fmt.Errorf("--timeout-strategy %q: choose cancel or ignore", f.timeoutStrategy)
	case f.granularity != "page" && f.granularity != "line":
		return r, fmt.Errorf("--granularity %q: choose line or page", f.granularity)
	case !slices.Contains([]string{"auto", "zstd", "none"}, f.compression):
		return r, fmt.Errorf("--compress %q: choose auto, zstd or none", f.compression)
	case !slices.Contains([]string{"auto", "twin", "hash", "none"}, f.baseline):
		return r, fmt.Errorf("--baseline %q: choose auto, twin, hash or none", f.baseline)
	case f.maxDowntime < time.Millisecond:
		return r, fmt.Errorf("--max-downtime %v: give at least 1ms", f.maxDowntime)
	case f.timeout < time.Second:
		return r, fmt.Errorf("--timeout %v: give at least 1s", f.timeout)
	}
	to, err := migration.ParseAddress(f.to)
	if err != nil {
		return r, fmt.Errorf("--to: %w", err)
	}
	files, err := f.tls.files(to)
	if err != nil {
		return r, err
	}
	r.TLSCert, r.TLSKey, r.TLSCA = files.Cert, files.Key, files.CA
	return r, r.Validate()
}

func (f *migrateFlags) run(c *cobra.Command, client *api.Client) error {
	request, err := f.request()
	if err != nil {
		return usageError{err}
	}
	warnClearText(request)
	bar := view.NewProgress(os.Stderr)
	result, err := process.Migrate(c.Context(), client, request, bar.Show)
	bar.Close()
	if err != nil {
		return err
	}
	if err := f.print(c.OutOrStdout(), result); err != nil {
		return err
	}
	if result.Status != migration.StatusCompleted {
		return fmt.Errorf("migration %s: %s", result.Status, result.Error)
	}
	return nil
}

func (f *migrateFlags) print(out io.Writer, r *migration.Result) error {
	if f.asJSON {
		return json.NewEncoder(out).Encode(r)
	}
	if err := view.Table(out, view.Rows(r)); err != nil {
		return err
	}
	fmt.Fprintln(out)
	view.Rounds(out, r)
	return nil
}
