package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/fineline-vmm/fineline/cmd/internal/bench"
	"github.com/fineline-vmm/fineline/cmd/internal/view"
)

func newBenchCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "bench NAME",
		Short: "Measure this VMM beside a peer or a physical limit",
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("name a benchmark: boot, diff, exits, migrate, postcopy or track")}
		},
	}
	c.AddCommand(newBenchBoot(), newBenchDiff(), newBenchExits(), newBenchMigrate(), newBenchPostcopy(), newBenchTrack())
	for _, sub := range c.Commands() {
		sub.Args = usageArgs(nil)
	}
	return c
}

// measurement runs one benchmark.
type measurement func(ctx context.Context, exe string, runs int, progress bench.Progress) (*bench.Report, error)

// benchCommand adds what all benchmarks have in common.
func benchCommand(name, short string, runs int, measure measurement) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   name,
		Short: short,
		RunE: func(c *cobra.Command, _ []string) error {
			if runs < 1 {
				return usageError{fmt.Errorf("--runs %d: give at least 1", runs)}
			}
			exe, err := os.Executable()
			if err != nil {
				return err
			}
			progress, done := runsBar(name)
			report, err := measure(c.Context(), exe, runs, progress)
			done()
			if cause := context.Cause(c.Context()); cause != nil {
				return cause // what fails then is not the reason
			}
			switch {
			case errors.Is(err, bench.ErrNoLoad):
				return usageError{fmt.Errorf("--only: %w", err)}
			case err != nil:
				return err
			}
			if asJSON {
				return json.NewEncoder(c.OutOrStdout()).Encode(report)
			}
			return report.Print(c.OutOrStdout())
		},
	}
	c.Flags().IntVar(&runs, "runs", runs, "how often each thing is measured; the medians are reported")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

// runsBar is a bar on stderr, if that is a terminal.
func runsBar(name string) (progress bench.Progress, done func()) {
	if !view.IsTerminal(os.Stderr) {
		return func(int, int) {}, func() {}
	}
	bars := view.NewBars(os.Stderr, 60)
	bar := bars.New(0, mpb.BarStyle().Rbound("|").Lbound("|"), mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Name(name+" ")), mpb.AppendDecorators(decor.CountersNoUnit(" run %d of %d")))
	return func(done, total int) {
			bar.SetTotal(int64(total), false)
			bar.SetCurrent(int64(done))
		}, func() {
			bar.Abort(true)
			bars.Wait()
		}
}

func newBenchBoot() *cobra.Command {
	return benchCommand("boot", "From exec to the guest's first byte, beside QEMU", 5, bench.Boot)
}

func newBenchDiff() *cobra.Command {
	return benchCommand("diff", "The kernels that compare pages by the line, beside bytes.Equal and copy", 25,
		func(ctx context.Context, _ string, runs int, progress bench.Progress) (*bench.Report, error) {
			return bench.Diff(ctx, runs, progress)
		})
}

func newBenchExits() *cobra.Command {
	return benchCommand("exits", "Port and MMIO exits, beside a bare KVM_RUN loop", 25,
		func(ctx context.Context, _ string, runs int, progress bench.Progress) (*bench.Report, error) {
			return bench.Exits(ctx, runs, progress)
		})
}

func newBenchTrack() *cobra.Command {
	return benchCommand("track", "What tracking by the line costs, beside KVM's page log", 7,
		func(ctx context.Context, _ string, runs int, progress bench.Progress) (*bench.Report, error) {
			return bench.Track(ctx, runs, progress)
		})
}
