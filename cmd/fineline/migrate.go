package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
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
	keepSource            bool
	checkpoint            time.Duration
	timeoutStrategy       string
	tls                   tlsFlags
	local, recover        bool
	asJSON                bool

	result *migration.Result // nil until one is told
}

func newMigrateCommand() *cobra.Command {
	f := &migrateFlags{}
	c := clientCommand("migrate", "Move a running machine to another process", f.run)
	move := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error { return f.report(c.OutOrStdout(), move(c, args)) }
	c.Use = "migrate --api PATH --to ADDR"
	c.Long = `Move a running machine to the process that waits with --incoming ADDR.

The guest runs on while its memory is sent, and what it writes meanwhile is sent
again by the line. It is paused for the last of it, within --max-downtime, and goes on
over there. Whatever fails before that leaves it running here. Ctrl-C cancels;
a second one does not wait for what comes of that.

--api and --to are all it takes. --mode postcopy moves the guest at once and its memory
after it, and --mode hybrid does so if the guest writes too fast to catch up with; from
then on the guest needs both processes, and cannot come back. If their connection is
lost it waits: repair the network, and --recover connects again.

With --keep-source the process here stays when its guest has moved. The destination
sends it a consistent checkpoint every --checkpoint-interval, or less often if they would
cost the guest more than a fifth of its time (fineline status says how often they come).
When the destination dies, the guest goes on here from the last whole one. Where its
death cannot be seen from here, say so: fineline resume --in-doubt keep. What the guest
did after that checkpoint is undone, though others may have seen it. fineline stop gives
the standby up.`
	c.Example = `  fineline run --incoming unix:b.mig --api b.sock --serial file:b.txt
  fineline migrate --api a.sock --to unix:b.mig
  fineline migrate --api a.sock --to tcp:192.0.2.7:7171 --max-downtime 20ms --json
  fineline migrate --api a.sock --recover`
	fl := c.Flags()
	fl.SortFlags = false // by how often they are wanted
	fl.StringVar(&f.to, "to", "", "where the destination listens: unix:PATH or tcp:HOST:PORT")
	fl.StringVar(&f.mode, "mode", "precopy", "memory moves before the guest (precopy), after it (postcopy), or what does not converge moves after it (hybrid)")
	fl.DurationVar(&f.maxDowntime, "max-downtime", migration.DefaultMaxDowntime, "how long the guest may stand still")
	fl.Var(&f.maxBandwidth, "max-bandwidth", "bytes a second while the guest runs, for example 100M; 0: no limit")
	fl.DurationVar(&f.timeout, "timeout", migration.DefaultTimeout, "how long it may take until the guest moves")
	fl.StringVar(&f.timeoutStrategy, "timeout-strategy", "cancel", "then: cancel, or ignore (stop the guest after the round under way, and finish)")
	fl.BoolVar(&f.asJSON, "json", false, "print the result as one JSON object")
	fl.BoolVar(&f.recover, "recover", false, "connect a post-copy again that lost its connection; --to: by this address of the same destination")
	fl.BoolVar(&f.keepSource, "keep-source", false, "stand by when the guest has moved: if the destination dies it goes on here from its last checkpoint")
	fl.DurationVar(&f.checkpoint, "checkpoint-interval", migration.DefaultCheckpointInterval, "with --keep-source: how often a checkpoint comes back, if that costs the guest at most a fifth of its time")
	f.tls.add(fl)
	fl.BoolVar(&f.local, "local", false, "hand the memory over instead of copying it: to a process of this host, unix:PATH only")
	fl.StringVar(&f.granularity, "granularity", "line", "what is sent again of a page: line, the lines that have changed; or page")
	fl.StringVar(&f.baseline, "baseline", "auto", "what lines are compared with: twin, a copy; hash, an eighth of that; none; auto, both")
	fl.Var(&f.baselineBudget, "baseline-budget", "the most memory that baselines may take; 0: half of the guest's")
	fl.StringVar(&f.compression, "compress", "auto", "zstd: always; none; auto: while the link is slower than compressing")
	fl.IntVar(&f.streams, "streams", 0, "connections for pages; 0: one for each processor, at most 4")
	return c
}

// run leaves what the VMM told to report.
func (f *migrateFlags) run(c *cobra.Command, client *api.Client) error {
	follow, err := f.begin(c, client)
	if err != nil {
		return err
	}
	bar := view.NewProgress(os.Stderr)
	defer bar.Close()
	f.result, err = follow(c.Context(), client, bar.Show)
	return err
}

// report is the one end of the command: with --json there is an object on stdout, however it went.
func (f *migrateFlags) report(out io.Writer, err error) error {
	if err != nil && !f.asJSON {
		return err
	}
	if f.result == nil {
		f.result = f.unheard(err)
	}
	if unsaid := f.print(out, f.result); unsaid != nil {
		return errors.Join(err, unsaid)
	}
	if err == nil && f.result.Status != migration.StatusCompleted {
		return fmt.Errorf("migration %s: %s", f.result.Status, f.result.Error)
	}
	return err
}

// unheard stands in for the result that nobody has told. The guest is surely here only where nothing was asked for; one that is to be
// recovered has left before.
func (f *migrateFlags) unheard(err error) *migration.Result {
	if f.recover {
		return process.Unheard(migration.StatusUnknown, api.MigrationRequest{}, err)
	}
	status := migration.StatusUnknown
	if errors.As(err, new(usageError)) {
		status = migration.StatusFailed
	}
	return process.Unheard(status, api.MigrationRequest{MemoryMode: f.mode, Granularity: f.granularity, Local: f.local}, err)
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
