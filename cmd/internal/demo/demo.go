package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/fineline-vmm/fineline/cmd/internal/workload"
	"github.com/fineline-vmm/fineline/migration"
	"github.com/fineline-vmm/fineline/vmm/api"
	"github.com/fineline-vmm/fineline/vmm/kvm"
)

// exitTimeout bounds the wait for a source that has given its guest away.
const exitTimeout = 10 * time.Second

// Options of Run.
type Options struct {
	Exe                   string // Fineline's binary
	MemoryMiB             int
	Load                  workload.Load
	MaxDowntime           time.Duration
	MaxBandwidthBytesPerS int64 // while the guest runs, 0: no limit
}

// Report is what the demo prints with --json.
type Report struct {
	KVM       string            `json:"kvm"` // hardware or software
	MemoryMiB int               `json:"memory_mib"`
	Load      workload.Load     `json:"load"`
	Migration *migration.Result `json:"migration"`
	// Mismatches is what the guest found at the destination: lines lost or stale.
	Mismatches uint64 `json:"mismatches"`
	// What the guest had written, and found, before and after.
	Before workload.Check `json:"before"`
	After  workload.Check `json:"after"`
}

// Show is told what happens, for people.
type Show struct {
	Step     func(format string, args ...any)
	Progress func(migration.Progress)
	Settled  func() // the migration is over: no more progress
}

// Run migrates the guest once. The report is there once the guest has been checked at the
// destination, also when it then turns out that memory was lost.
func Run(ctx context.Context, o Options, show Show) (_ *Report, err error) {
	kind, err := hostKVM()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "fineline-demo-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	source, err := workload.StartSource(ctx, o.Exe, dir, "builtin:"+workload.Name, o.MemoryMiB, o.Load)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	show.Step("source       pid %d on %s KVM: builtin:dirty, %d vCPUs, %d MiB of memory", source.PID(), kind, o.Load.VCPUs, o.MemoryMiB)
	show.Step("load         %s", o.Load)

	destination, err := workload.StartDestination(ctx, o.Exe, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, destination.Close()) }()
	show.Step("destination  pid %d waits at %s", destination.PID(), destination.Incoming)

	r := &Report{KVM: kind, MemoryMiB: o.MemoryMiB, Load: o.Load}
	// As many stores as there are lines: by then there is memory to move.
	if r.Before, err = source.Guest.AwaitSteps(ctx, o.Load.Pages*o.Load.Lines); err != nil {
		return nil, err
	}
	show.Step("the guest's own check at the source: %d stores, %d mismatches", r.Before.Steps, r.Before.Mismatches)
	show.Step("migration    the guest goes on writing")
	r.Migration, err = source.Migrate(ctx, api.MigrationRequest{
		DestinationURL: destination.Incoming, DowntimeMS: o.MaxDowntime.Milliseconds(),
		MaxBandwidthBytesPerSecond: o.MaxBandwidthBytesPerS,
	}, show.Progress)
	show.Settled()
	if err != nil {
		return nil, err
	}
	if r.Migration.Status != migration.StatusCompleted {
		return nil, fmt.Errorf("the migration %s: %s", r.Migration.Status, r.Migration.Error)
	}
	if err := awaitEnd(ctx, source); err != nil {
		return nil, err
	}
	show.Step("the source has ended; the guest runs in pid %d", destination.PID())
	if r.After, err = destination.Guest.Check(ctx); err != nil {
		return nil, err
	}
	r.Mismatches = r.After.Mismatches
	show.Step("the guest's own check at the destination: %d stores, %d mismatches", r.After.Steps, r.After.Mismatches)
	return r, r.After.Err()
}

// hostKVM says which kind of KVM there is, or what is missing.
func hostKVM() (string, error) {
	sys, err := kvm.Open()
	if err != nil {
		return "", fmt.Errorf("the demo needs a usable KVM: %w (`fineline doctor` tells more)", err)
	}
	return sys.Kind().String(), sys.Close()
}

// awaitEnd waits for a source that has no guest any more: it ends by itself.
func awaitEnd(ctx context.Context, source *workload.Machine) error {
	ctx, cancel := context.WithTimeout(ctx, exitTimeout)
	defer cancel()
	select {
	case <-source.Exited():
		if err := source.Err(); err != nil {
			return fmt.Errorf("the source ended with %w: %s", err, source.Stderr())
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the source has not ended after the migration: %w", ctx.Err())
	}
}
