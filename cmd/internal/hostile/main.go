package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"time"

	"github.com/fineline-vmm/fineline/migration/hostile"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "hostile:", err)
	}
	stop()
	os.Exit(exitCode(err))
}

// exitCode is that of fineline: 0 done, 1 failed, 2 wrong usage.
func exitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errUsage):
		return 2
	}
	return 1
}

var errUsage = errors.New("use: middle FROM TO SEED FRAMES [forge] | destination SOCKET NAME | source SOCKET DESCRIPTION NAME | list")

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 1 && args[0] == "list":
		for _, s := range hostile.Sources() {
			fmt.Printf("source %q %s\n", s.Name, s.Mode)
		}
		for _, d := range hostile.Destinations() {
			with := string(d.Mode)
			if d.Keep {
				with += " --keep-source"
			}
			fmt.Printf("destination %q %s\n", d.Name, with)
		}
		return nil
	case len(args) == 5 && args[0] == "middle":
		return middle(ctx, args[1], args[2], args[3], args[4], false)
	case len(args) == 6 && args[0] == "middle" && args[5] == "forge":
		return middle(ctx, args[1], args[2], args[3], args[4], true)
	case len(args) == 3 && args[0] == "destination":
		return destination(ctx, args[1], args[2])
	case len(args) == 4 && args[0] == "source":
		return source(ctx, args[1], args[2], args[3])
	}
	return errUsage
}

func dial(path string) hostile.Dial {
	return func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}
}

func middle(ctx context.Context, from, to, seed, frames string, forge bool) error {
	n, err := strconv.ParseUint(seed, 10, 64)
	if err != nil {
		return fmt.Errorf("seed %q: %w", seed, errUsage)
	}
	count, err := strconv.Atoi(frames)
	if err != nil || count < 1 {
		return fmt.Errorf("%q frames: %w", frames, errUsage)
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "unix", from)
	if err != nil {
		return err
	}
	m := hostile.NewMiddle(ln, dial(to))
	plan := hostile.NewPlan(n, count, forge)
	fmt.Println(plan)
	m.Arm(plan)
	<-ctx.Done()
	did, passed := m.Done()
	fmt.Printf("%d frames passed, the deed was done: %v\n", passed, did)
	return m.Close()
}

func destination(ctx context.Context, path, name string) error {
	for _, d := range hostile.Destinations() {
		if d.Name != name {
			continue
		}
		ln, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
		if err != nil {
			return err
		}
		description, err := d.Serve(ctx, ln, func() { fmt.Fprintln(os.Stderr, "all was done; Ctrl-C ends this") })
		_, writeErr := os.Stdout.Write(description)
		return errors.Join(err, writeErr)
	}
	return fmt.Errorf("no destination is called %q: %w", name, errUsage)
}

func source(ctx context.Context, path, file, name string) error {
	description, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	for _, s := range hostile.Sources() {
		if s.Name == name {
			return s.Attack(ctx, dial(path), uint64(time.Now().Unix()), description) // a generation newer than any
		}
	}
	return fmt.Errorf("no source is called %q: %w", name, errUsage)
}
