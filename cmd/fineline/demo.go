package main

import (
	"encoding/json"
	"errors"
	"os"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/fineline-vmm/fineline/cmd/internal/demo"
	"github.com/fineline-vmm/fineline/cmd/internal/workload"
)

// The demo's load and link are such that pages would not do: the guest dirties them faster than the link carries them, and their
// lines far slower. A few lines are written again and again and most now and then, so that rounds shrink.
const (
	demoMemoryMiB = 512
	demoPages     = 2048
	demoLines     = 32
	demoRate      = 20000   // lines a second of each vCPU
	demoBandwidth = 4 << 20 // bytes a second
)

func newDemoCommand() *cobra.Command {
	var asJSON bool
	maxBandwidth := sizeBytes(demoBandwidth)
	maxDowntime := 50 * time.Millisecond
	c := &cobra.Command{
		Use:   "demo",
		Short: "Two VMM processes, a live migration under load, the numbers, a picture",
		Long: `Start two VMM processes on this host's KVM, migrate a guest that writes memory
all the time from one to the other, and let it check at the destination that no
line was lost. Nothing stays behind.

The link is limited so that there is something to see; --max-bandwidth 0 lifts that.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := checkDowntime(maxDowntime); err != nil {
				return usageError{err}
			}
			exe, err := os.Executable()
			if err != nil {
				return err
			}
			show := demo.Silent()
			if !asJSON {
				show = demo.Terminal(c.OutOrStdout(), os.Stderr)
			}
			report, err := demo.Run(c.Context(), demo.Options{
				Exe: exe, MemoryMiB: demoMemoryMiB, MaxDowntime: maxDowntime, MaxBandwidthBytesPerS: int64(maxBandwidth),
				Load: workload.Load{
					VCPUs: min(2, runtime.NumCPU()), Pages: demoPages, Lines: demoLines, Pattern: "zipf", Rate: demoRate,
				},
			}, show)
			switch {
			case report == nil:
				return err
			case asJSON:
				return errors.Join(err, json.NewEncoder(c.OutOrStdout()).Encode(report))
			default:
				return errors.Join(err, report.Print(c.OutOrStdout()))
			}
		},
	}
	fl := c.Flags()
	fl.DurationVar(&maxDowntime, "max-downtime", maxDowntime, "how long the guest may stand still")
	fl.Var(&maxBandwidth, "max-bandwidth", "bytes a second while the guest runs; 0: no limit")
	fl.BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}
