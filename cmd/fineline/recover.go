package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/cmd/internal/process"
	"github.com/fineline-vmm/fineline/migration"
	"github.com/fineline-vmm/fineline/vmm/api"
)

// follower does what is left to do of `fineline migrate`, and shows how far it is.
type follower func(context.Context, *api.Client, func(migration.Progress)) (*migration.Result, error)

// begin checks the flags. A new migration is only begun by the follower, which can cancel it.
func (f *migrateFlags) begin(c *cobra.Command, client *api.Client) (follower, error) {
	if f.recover {
		request, err := f.recoverRequest(c)
		if err != nil {
			return nil, usageError{err}
		}
		return followRecovered, client.RecoverMigration(c.Context(), request)
	}
	request, err := f.request(c.Flags().Changed)
	if err != nil {
		return nil, usageError{err}
	}
	warnClearText(request)
	return func(ctx context.Context, client *api.Client, show func(migration.Progress)) (*migration.Result, error) {
		return process.Migrate(ctx, secondSignal(), client, request, show)
	}, nil
}

// recoverRequest: the migration that there is goes on as it began.
func (f *migrateFlags) recoverRequest(c *cobra.Command) (r api.RecoverRequest, err error) {
	c.Flags().Visit(func(flag *pflag.Flag) {
		if !slices.Contains([]string{"api", "to", "recover", "json", "verbose"}, flag.Name) {
			err = fmt.Errorf("--recover goes on with the migration that there is, as it began: leave out --%s", flag.Name)
		}
	})
	if err != nil || f.to == "" {
		return r, err
	}
	to, err := destination(f.to)
	return api.RecoverRequest{DestinationURL: to.String()}, err
}

// secondSignal is closed when this process has got two signals to end: the first one cancels, and whoever does not want to wait for
// what comes of that gives another.
func secondSignal() <-chan struct{} {
	signals, second := make(chan os.Signal, 2), make(chan struct{})
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	go func() {
		<-signals
		<-signals
		close(second)
	}()
	return second
}

// followRecovered can't cancel anything: Ctrl-C only ends the following.
func followRecovered(ctx context.Context, client *api.Client, show func(migration.Progress)) (*migration.Result, error) {
	lasting, detach := context.WithCancelCause(context.WithoutCancel(ctx))
	defer detach(nil)
	defer context.AfterFunc(ctx, func() { detach(process.ErrDetached) })()
	return process.Follow(lasting, client, show)
}
