package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/fineline-vmm/fineline/vmm/api"
)

// clientCommand is a subcommand that sends something to a running VMM.
func clientCommand(use, short string, do func(*cobra.Command, *api.Client) error) *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   use + " --api PATH",
		Short: short,
		RunE: func(c *cobra.Command, _ []string) error {
			if path == "" {
				return usageError{errors.New("give --api, the socket of the machine")}
			}
			client := api.NewClient(path)
			return do(c, client)
		},
	}
	c.Flags().StringVar(&path, "api", "", "API socket of the machine")
	return c
}

// simple is a subcommand without flags of its own.
func simple(use, short string, do func(*api.Client, context.Context) error) *cobra.Command {
	return clientCommand(use, short, func(c *cobra.Command, client *api.Client) error { return do(client, c.Context()) })
}

func newPauseCommand() *cobra.Command {
	return simple("pause", "Stop all vCPUs of a machine", (*api.Client).Pause)
}

func newStopCommand() *cobra.Command {
	return simple("stop", "End a machine and its process", (*api.Client).Stop)
}

func newCancelCommand() *cobra.Command {
	return simple("cancel", "Cancel a migration: the guest goes on at the source", (*api.Client).CancelMigration)
}

func newResumeCommand() *cobra.Command {
	var decision string
	c := clientCommand("resume", "Let a paused machine run, or settle a migration in doubt",
		func(c *cobra.Command, client *api.Client) error {
			switch api.Decision(decision) {
			case api.DecisionKeep, api.DecisionDiscard:
				return client.ResolveMigration(c.Context(), api.Decision(decision))
			case "":
				return client.Resume(c.Context())
			}
			return usageError{fmt.Errorf("--in-doubt %q: choose keep or discard", decision)}
		})
	c.Flags().StringVar(&decision, "in-doubt", "", "keep (the guest runs nowhere else) or discard (it runs elsewhere)")
	return c
}
