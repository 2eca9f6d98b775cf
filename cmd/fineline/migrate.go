package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

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
}

func newMigrateCommand() *cobra.Command {
	f := &migrateFlags{}
	c := clientCommand("migrate", "Move a running machine to another process", f.run)
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
	fl.StringVar(&f.timeoutStrategy, "timeout-strategy", "cancel", "then: cancel, or ignore (stop the guest and finish)")
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

func (f *migrateFlags) run(c *cobra.Command, client *api.Client) error {
	follow, err := f.begin(c, client)
	if err != nil {
		return err
	}
	bar := view.NewProgress(os.Stderr)
	result, err := follow(c.Context(), client, bar.Show)
	bar.Close()
	if err != nil {
		if result != nil && f.asJSON { // it was refused
			err = errors.Join(err, f.print(c.OutOrStdout(), result))
		}
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
