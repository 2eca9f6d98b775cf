// Command fineline is a KVM virtual machine monitor that sees guest memory by
// the cache line. Each subcommand is a thin file beside this one.
//
// Exit codes: 0 done, 1 failed, 2 wrong usage. A guest that ends its run through
// port 0xf4 (isa-debug-exit) with the value v makes `fineline run` end with
// (v<<1)|1, as QEMU does.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// usageError marks what the user typed wrong: exit code 2.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// exitStatus is a status that a guest chose.
type exitStatus int

func (s exitStatus) Error() string {
	return fmt.Sprintf("the guest ended the run with status %d", int(s))
}

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	err := newRoot().ExecuteContext(ctx)
	cancel()
	os.Exit(report(err))
}

// report prints the one line of an error and returns the exit code.
func report(err error) int {
	var status exitStatus
	var usage usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	case errors.As(err, &usage):
		fmt.Fprintf(os.Stderr, "fineline: %v (see `fineline --help`)\n", err)
		return 2
	default:
		fmt.Fprintf(os.Stderr, "fineline: %v\n", err)
		return 1
	}
}

func newRoot() *cobra.Command {
	var verbose bool
	root := &cobra.Command{
		Use:           "fineline",
		Short:         "A KVM virtual machine monitor that sees guest memory by the cache line",
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		// Runnable and with Args, so that an unknown command is a usage error like any other.
		Args: usageArgs(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
		PersistentPreRun: func(*cobra.Command, []string) {
			logrus.SetOutput(os.Stderr)
			if verbose {
				logrus.SetLevel(logrus.DebugLevel)
			}
		},
	}
	root.PersistentFlags().BoolVarP(&verbose, "verbose", "v", false, "log more to stderr")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(
		newRunCommand(), newMigrateCommand(), newCancelCommand(),
		newPauseCommand(), newResumeCommand(), newStatusCommand(), newStopCommand(),
		newTrackCommand(), newDoctorCommand(), newDemoCommand(), newBenchCommand(),
	)
	for _, c := range root.Commands() {
		c.Args = usageArgs(c.Args)
	}
	return root
}

// usageArgs makes surplus or missing arguments a usage error.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	if check == nil {
		check = cobra.NoArgs
	}
	return func(c *cobra.Command, args []string) error {
		if err := check(c, args); err != nil {
			return usageError{err}
		}
		return nil
	}
}
