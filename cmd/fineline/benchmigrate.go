package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fineline-vmm/fineline/cmd/internal/bench"
	"github.com/fineline-vmm/fineline/cmd/internal/qemu"
	"github.com/fineline-vmm/fineline/cmd/internal/relay"
)

// moveFlags are common to the benchmarks that migrate.
type moveFlags struct {
	options      bench.MigrateOptions
	maxBandwidth sizeBytes
	budget       sizeBytes
	link         bitsPerSecond
	linkDelay    time.Duration
	mode         string
}

// ofCopies are the flags that say how memory is sent.
var ofCopies = []string{"max-bandwidth", "link", "mode", "granularity", "baseline", "baseline-budget", "streams"}

func (f *moveFlags) add(fl *pflag.FlagSet, scenarios string) {
	o := &f.options
	o.MaxDowntime = 300 * time.Millisecond
	fl.StringSliceVar(&o.Only, "only", nil, "the loads to measure, by name or number; those with a star only when named: "+scenarios)
	fl.DurationVar(&o.MaxDowntime, "max-downtime", o.MaxDowntime, "downtime allowed to both (the default is QEMU's)")
	fl.Var(&f.maxBandwidth, "max-bandwidth", "bytes a second that both VMMs allow themselves, for example 64M; 0: as the load has it")
	fl.Var(&f.link, "link", "one link that the whole stream of both passes, a relay in this process: 1Gbit, 100Mbit; empty: none")
	fl.DurationVar(&f.linkDelay, "link-delay", 0, "delay of that link, one way")
	fl.StringVar(&f.mode, "mode", f.mode, "Fineline's: precopy, postcopy or hybrid; empty: its default")
	fl.StringVar(&o.Granularity, "granularity", "", "Fineline's: page or line; empty: its default")
	fl.StringVar(&o.Baseline, "baseline", "", "Fineline's: auto, twin, hash or none; empty: its default")
	fl.Var(&f.budget, "baseline-budget", "Fineline's: the most memory that baselines may take; 0: its default")
	fl.IntVar(&o.Streams, "streams", 0, "Fineline's connections for pages; 0: its default")
}

// checkCopies refuses what has no meaning where nothing is copied.
func checkCopies(fl *pflag.FlagSet) error {
	for _, name := range ofCopies {
		if fl.Changed(name) {
			return fmt.Errorf("--local copies no memory: leave --%s out", name)
		}
	}
	return nil
}

// check returns the options as package bench takes them.
func (f *moveFlags) check(exe string, runs int) (bench.MigrateOptions, error) {
	o := f.options
	mode, known := modes[f.mode]
	switch {
	case !known && f.mode != "":
		return o, fmt.Errorf("--mode %q: choose precopy, postcopy or hybrid", f.mode)
	case checkDowntime(o.MaxDowntime) != nil:
		return o, checkDowntime(o.MaxDowntime)
	case f.linkDelay < 0 || f.linkDelay > 0 && f.link == 0:
		return o, fmt.Errorf("--link-delay %v: give a delay of at least 0, and --link", f.linkDelay)
	case o.Streams < 0:
		return o, fmt.Errorf("--streams %d: give at least 0", o.Streams)
	}
	for _, peer := range o.Peers {
		if _, err := qemu.Choose(peer, 1<<20); err != nil && peer != bench.PeerAll && peer != bench.PeerNone {
			return o, fmt.Errorf("--peer: %w, all or none", err)
		}
	}
	o.Exe, o.Runs, o.Mode, o.MaxBandwidthBytesPerS = exe, runs, mode, uint64(f.maxBandwidth)
	o.BaselineBudgetBytes = uint64(f.budget)
	if f.link != 0 {
		o.Link = &relay.Link{BitsPerS: uint64(f.link), Delay: f.linkDelay}
	}
	return o, nil
}

func newBenchMigrate() *cobra.Command {
	f := moveFlags{options: bench.MigrateOptions{Peers: []string{"qemu"}}}
	var plot string
	var fl *pflag.FlagSet
	c := benchCommand("migrate", "Live migrations under several loads, beside QEMU", 5,
		func(ctx context.Context, exe string, runs int, progress bench.Progress) (*bench.Report, error) {
			o, err := f.check(exe, runs)
			if err == nil && o.Local {
				err = checkCopies(fl)
			}
			if err != nil {
				return nil, usageError{err}
			}
			report, err := bench.Migrate(ctx, o, progress)
			if err != nil || plot == "" {
				return report, err
			}
			picture, err := bench.Plot(ctx, o)
			if err != nil {
				return nil, err
			}
			return report, os.WriteFile(plot, []byte(picture), 0o666)
		})
	fl = c.Flags()
	fl.StringSliceVar(&f.options.Peers, "peer", f.options.Peers, strings.Join(qemu.Names(), ", ")+", all or none")
	fl.BoolVar(&f.options.Local, "local", false, "Fineline hands the memory over, the peer copies it")
	fl.StringVar(&plot, "plot", "", "draw one more migration of the first load, ours and the first peer's, into this SVG file")
	f.add(fl, bench.MigrateScenarios())
	return c
}

func newBenchPostcopy() *cobra.Command {
	f := moveFlags{options: bench.MigrateOptions{Peers: []string{"all"}}, mode: "postcopy"}
	c := benchCommand("postcopy", "Post-copies under passes over a working set, beside QEMU and a bare page fault", 5,
		func(ctx context.Context, exe string, runs int, progress bench.Progress) (*bench.Report, error) {
			o, err := f.check(exe, runs)
			if err != nil {
				return nil, usageError{err}
			}
			return bench.Postcopy(ctx, o, progress)
		})
	fl := c.Flags()
	fl.StringSliceVar(&f.options.Peers, "peer", f.options.Peers, "qemu-postcopy, qemu-postcopy-preempt, all or none")
	fl.BoolVar(&f.options.KeepSource, "keep-source", false, "Fineline keeps its source, with a checkpoint every 100 ms or less often: what they cost the guest, too")
	f.add(fl, bench.PostcopyScenarios())
	return c
}

// bitsPerSecond is a flag like 1Gbit or 100Mbit.
type bitsPerSecond uint64

var bitUnits = []struct {
	suffix string
	bits   float64
}{{"Gbit", 1e9}, {"Mbit", 1e6}, {"kbit", 1e3}, {"bit", 1}}

func (b *bitsPerSecond) Set(text string) error {
	for _, u := range bitUnits {
		digits, ok := strings.CutSuffix(text, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(digits, 64)
		if bits := n * u.bits; err == nil && bits >= 8000 && bits <= 1e12 {
			*b = bitsPerSecond(bits)
			return nil
		}
		break
	}
	return fmt.Errorf("%q is not a rate: write 1Gbit or 100Mbit", text)
}

func (b *bitsPerSecond) String() string {
	for _, u := range bitUnits {
		if n := float64(*b) / u.bits; n >= 1 {
			return strconv.FormatFloat(n, 'g', -1, 64) + u.suffix
		}
	}
	return ""
}

func (*bitsPerSecond) Type() string { return "rate" }
