package workload

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"github.com/fineline-vmm/fineline/cmd/internal/process"
)

// stepsInterval is how often AwaitSteps asks: each question stops the guest.
const stepsInterval = 50 * time.Millisecond

// Machine is a `fineline run` process and the conversation with the guest in it.
type Machine struct {
	*process.VMM
	Guest *Guest
	// Incoming is where a destination listens, as `fineline migrate --to` takes it.
	Incoming string
}

// StartSource runs the guest under load in a process of its own and returns when every
// vCPU writes. kernel is a file or builtin:dirty. The caller calls Close.
func StartSource(ctx context.Context, exe, dir, kernel string, memoryMiB int, load Load) (*Machine, error) {
	m, err := startMachine(ctx, exe, dir, "source", "--kernel", kernel, "--cmdline", load.Cmdline(),
		"--cpus", strconv.Itoa(load.VCPUs), "--memory", strconv.Itoa(memoryMiB)+"M")
	if err != nil {
		return nil, err
	}
	if err := m.Guest.AwaitReady(ctx); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// StartDestination runs a process that waits for a guest. The caller calls Close.
func StartDestination(ctx context.Context, exe, dir string) (*Machine, error) {
	address := "unix:" + filepath.Join(dir, "incoming.sock")
	m, err := startMachine(ctx, exe, dir, "destination", "--incoming", address)
	if err != nil {
		return nil, err
	}
	m.Incoming = address
	return m, nil
}

func startMachine(ctx context.Context, exe, dir, name string, args ...string) (*Machine, error) {
	serial := filepath.Join(dir, name+".serial")
	args = append(args, "--serial", "unix:"+serial, "--journal", filepath.Join(dir, name+".journal"))
	v, err := process.Start(ctx, exe, dir, name, nil, args...)
	if err != nil {
		return nil, err
	}
	guest, err := Dial(ctx, serial)
	if err != nil {
		return nil, errors.Join(err, v.Close())
	}
	return &Machine{VMM: v, Guest: guest}, nil
}

// Close ends the process.
func (m *Machine) Close() error { return errors.Join(m.Guest.Close(), m.VMM.Close()) }

// AwaitSteps returns when the guest has made n stores and all its memory is right.
func (g *Guest) AwaitSteps(ctx context.Context, n uint64) (Check, error) {
	tick := time.NewTicker(stepsInterval)
	defer tick.Stop()
	for {
		c, err := g.Check(ctx)
		if err == nil {
			err = c.Err()
		}
		if err != nil || c.Steps >= n {
			return c, err
		}
		select {
		case <-ctx.Done():
			return c, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// Err is nil if no memory was lost.
func (c Check) Err() error {
	if c.Mismatches == 0 {
		return nil
	}
	return fmt.Errorf("the guest's memory is wrong: %d lines, the first: %s", c.Mismatches, c.First)
}
