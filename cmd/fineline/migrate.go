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

	"github.com/fineline-vmm/fineline/cmd/internal/view"
	"github.com/fineline-vmm/fineline/migration"
	"github.com/fineline-vmm/fineline/migration/wire"
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
over there. Whatever fails before that leaves it running here. Ctrl-C cancels.

--api and --to are all it takes. --mode postcopy moves the guest at once and its memory
after it, and --mode hybrid does so if the guest writes too fast to catch up with; from
then on the guest needs both processes, and cannot come back. If their connection is
lost it waits: repair the network, and --recover connects again.

With --keep-source the process here stays when its guest has moved. The destination
sends it a consistent checkpoint every --checkpoint-interval; when the destination dies,
the guest goes on here from the last whole one. Where its death cannot be seen from
here, say so: fineline resume --in-doubt keep. What the guest did after that checkpoint
is undone, though others may have seen it. fineline stop gives the standby up.`
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
	fl.DurationVar(&f.checkpoint, "checkpoint-interval", migration.DefaultCheckpointInterval, "with --keep-source: how often a checkpoint comes back")
	f.tls.add(fl)
	fl.BoolVar(&f.local, "local", false, "hand the memory over instead of copying it: to a process of this host, unix:PATH only")
	fl.StringVar(&f.granularity, "granularity", "line", "what is sent again of a page: line, the lines that have changed; or page")
	fl.StringVar(&f.baseline, "baseline", "auto", "what lines are compared with: twin, a copy; hash, an eighth of that; none; auto, both")
	fl.Var(&f.baselineBudget, "baseline-budget", "the most memory that baselines may take; 0: half of the guest's")
	fl.StringVar(&f.compression, "compress", "auto", "zstd: always; none; auto: while the link is slower than compressing")
	fl.IntVar(&f.streams, "streams", 0, "connections for pages; 0: one for each processor, at most 4")
	return c
}

// modes are the values of --mode, and what the API calls them.
var modes = map[string]string{"precopy": "Precopy", "postcopy": "Postcopy", "hybrid": "Hybrid"}

func (f *migrateFlags) request() (api.MigrationRequest, error) {
	strategies := map[string]string{"cancel": "Cancel", "ignore": "Ignore"}
	r := api.MigrationRequest{
		DestinationURL: f.to, MemoryMode: modes[f.mode], Granularity: f.granularity,
		DowntimeMS: f.maxDowntime.Milliseconds(), TimeoutS: int64(f.timeout / time.Second),
		TimeoutStrategy: strategies[f.timeoutStrategy], MaxBandwidthBytesPerSecond: int64(f.maxBandwidth),
		Compression: f.compression, Baseline: f.baseline, BaselineBudgetBytes: int64(f.baselineBudget), Connections: f.streams, Local: f.local,
	}
	if f.keepSource {
		r.KeepSource, r.CheckpointMS = true, f.checkpoint.Milliseconds()
	}
	switch {
	case f.to == "":
		return r, errors.New("give --to, where the destination listens with --incoming: unix:PATH or tcp:HOST:PORT")
	case f.granularity == "page" && f.baseline != "auto" && f.baseline != "none":
		return r, fmt.Errorf("--baseline %s is for --granularity line: pages are not compared", f.baseline)
	case f.baseline == "none" && f.baselineBudget != 0:
		return r, errors.New("--baseline-budget is for baselines: --baseline none has none")
	case f.streams < 0 || f.streams > maxStreams:
		return r, fmt.Errorf("--streams %d: choose 1 to %d, or 0 for what suits this host", f.streams, maxStreams)
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
	case f.keepSource && f.local:
		return r, errors.New("--keep-source needs a copy of the memory, and --local makes none")
	case f.keepSource && f.checkpoint < time.Millisecond:
		return r, fmt.Errorf("--checkpoint-interval %v: give at least 1ms", f.checkpoint)
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

// maxStreams is what the protocol has, less the main connection.
const maxStreams = wire.MaxStreams - 1

func (f *migrateFlags) run(c *cobra.Command, client *api.Client) error {
	follow, err := f.begin(c, client)
	if err != nil {
		return err
	}
	bar := view.NewProgress(os.Stderr)
	result, err := follow(c.Context(), client, bar.Show)
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
