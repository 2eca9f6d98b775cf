// Command fineline-guest is Fineline's tool inside stock Linux guests: it tracks which cache lines
// programs write, by the machine's FPGA device.
//
// Exit codes: 0 done, 1 failed, 2 wrong usage.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/guest/track"
	"github.com/fineline-vmm/fineline/guest/track/pci"
)

// usageError marks what the user typed wrong: exit code 2.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	err := newRoot().ExecuteContext(ctx)
	cancel()
	os.Exit(report(err))
}

// report prints the one line of an error and returns the exit code.
func report(err error) int {
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage):
		fmt.Fprintf(os.Stderr, "fineline-guest: %v (see `fineline-guest --help`)\n", err)
		return 2
	default:
		fmt.Fprintf(os.Stderr, "fineline-guest: %v\n", err)
		return 1
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "fineline-guest",
		Short:         "Track by the cache line what programs write, inside a guest of Fineline",
		SilenceErrors: true,
		SilenceUsage:  true,
		// Runnable and with Args, so that an unknown command is a usage error like any other.
		Args: usageArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
		PersistentPreRun: func(*cobra.Command, []string) {
			logrus.SetOutput(os.Stderr)
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(newTrackCommand(), newServeCommand(), newListCommand())
	for _, c := range root.Commands() {
		c.Args = usageArgs
	}
	return root
}

// usageArgs makes surplus arguments a usage error.
func usageArgs(c *cobra.Command, args []string) error {
	if err := cobra.NoArgs(c, args); err != nil {
		return usageError{err}
	}
	return nil
}

// openDevice is track.Open with an error that says what to do next.
func openDevice() (*track.Device, error) {
	d, err := track.Open()
	switch {
	case errors.Is(err, pci.ErrNotFound):
		return nil, fmt.Errorf("%w: this machine has no FPGA device of Fineline", err)
	case errors.Is(err, pci.ErrInUse):
		return nil, fmt.Errorf("%w: ask the daemon that has it, by --socket", err)
	}
	return d, err
}

// openSystem takes the daemon if it is there, else the device.
func openSystem(socket string) (track.System, error) {
	if _, err := os.Stat(socket); err == nil {
		return track.Dial(socket)
	} else if socket != track.DefaultSocket {
		return nil, err // asked for
	}
	return openDevice()
}

// socketFlag adds --socket.
func socketFlag(c *cobra.Command, socket *string, usage string) {
	c.Flags().StringVar(socket, "socket", track.DefaultSocket, usage)
}

// positive refuses durations that are not.
func positive(name string, d time.Duration) error {
	if d <= 0 {
		return usageError{fmt.Errorf("--%s %v: want more than 0", name, d)}
	}
	return nil
}
