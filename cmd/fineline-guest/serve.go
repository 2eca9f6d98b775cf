package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"github.com/fineline-vmm/fineline/guest/track"
	"github.com/fineline-vmm/fineline/guest/track/daemon"
)

func newServeCommand() *cobra.Command {
	var socket string
	userMiB := daemon.DefaultLimits.UserBytes >> 20
	c := &cobra.Command{
		Use:   "serve",
		Short: "Own the device and share it with programs, over a unix socket",
		Long: `Own the device and share it with programs. A program may track its own memory; root may track any process
and list all sessions.`,
		RunE: func(c *cobra.Command, _ []string) error { return serve(c.Context(), socket, userMiB<<20) },
	}
	socketFlag(c, &socket, "where to listen")
	c.Flags().Uint64Var(&userMiB, "user-memory", userMiB, "MiB that all programs of one user, other than root, may track together")
	return c
}

func serve(ctx context.Context, socket string, userBytes uint64) (err error) {
	device, err := openDevice()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, device.Close()) }()
	listener, err := daemon.Listen(socket)
	if err != nil {
		return err
	}
	limits := daemon.DefaultLimits
	limits.UserBytes = userBytes
	logrus.Infof("serving %s", socket)
	s := &daemon.Server{System: device, Limits: limits, Identify: daemon.Identify, Log: logrus.Warnf}
	return s.Serve(ctx, listener)
}

func newListCommand() *cobra.Command {
	var socket string
	c := &cobra.Command{
		Use:   "list",
		Short: "List the sessions of the daemon (root only)",
		RunE:  func(c *cobra.Command, _ []string) error { return list(socket) },
	}
	socketFlag(c, &socket, "socket of the daemon")
	return c
}

func list(socket string) (err error) {
	client, err := track.Dial(socket)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	sessions, err := client.List()
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SESSION\tTRACKED\tCLIENT\tUSER\tSTARTED")
	for _, s := range sessions {
		fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%v\n", s.Session, s.PID, s.Client, s.UID, s.Started)
	}
	return w.Flush()
}
