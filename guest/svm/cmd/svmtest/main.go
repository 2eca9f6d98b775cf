// Command svmtest runs Go tests in the emulated machine with hardware KVM.
//
//	svmtest [flags] PACKAGE...
//	svmtest [flags] -sh COMMAND
//
// It ends with a line `svm: N passed, N failed, N skipped` and exit status 0
// when nothing failed, 1 when tests failed or could not run, 2 for wrong usage.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/guest/svm"
	"github.com/fineline-vmm/fineline/images/linux"
)

func main() {
	suite, err := parse(os.Args[1:])
	if err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "svmtest:", err)
		}
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if err := run(ctx, suite); err != nil {
		if !errors.Is(err, svm.ErrTestsFailed) {
			fmt.Fprintln(os.Stderr, "svmtest:", err)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, suite *svm.Suite) error {
	if err := linux.EnsureTools(ctx); err != nil {
		return err
	}
	_, err := suite.Run(ctx)
	return err
}

func parse(args []string) (*svm.Suite, error) {
	suite := &svm.Suite{Out: os.Stdout, Files: map[string]string{}}
	f := flag.NewFlagSet("svmtest", flag.ContinueOnError)
	f.Usage = func() {
		fmt.Fprint(f.Output(), "usage: svmtest [flags] PACKAGE...\n       svmtest [flags] -sh COMMAND\n")
		f.PrintDefaults()
	}
	pattern := f.String("run", "", "only tests that match this regular expression")
	short := f.Bool("short", false, "pass -test.short")
	asJSON := f.Bool("json", false, "print test2json events on stdout, the report on stderr")
	memoryMiB := f.Uint64("memory", 6144, "memory of the machine in MiB")
	f.IntVar(&suite.CPUs, "cpus", 2, "CPUs of the machine")
	f.DurationVar(&suite.Timeout, "timeout", 15*time.Minute, "for everything inside the machine")
	f.StringVar(&suite.ConsoleLog, "console", "", "keep the machine's console output in this file")
	f.StringVar(&suite.Shell, "sh", "", "run this command by the machine's shell in place of tests")
	f.BoolVar(&suite.Verbose, "v", false, "print the output of all tests")
	f.Func("bin", "main package to put into /bin of the machine (may repeat)", func(p string) error {
		suite.Programs = append(suite.Programs, p)
		return nil
	})
	f.Func("env", "NAME=VALUE for the tests (may repeat)", func(e string) error {
		suite.Env = append(suite.Env, e)
		return nil
	})
	f.Func("file", "INSIDE=HERE, a file to put into the machine (may repeat)", func(pair string) error {
		inside, here, ok := strings.Cut(pair, "=")
		if !ok {
			return errors.New("want INSIDE=HERE")
		}
		suite.Files[inside] = here
		return nil
	})
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	suite.Packages = f.Args()
	suite.MemoryBytes = *memoryMiB << 20
	if *pattern != "" {
		suite.TestFlags = append(suite.TestFlags, "-test.run="+*pattern)
	}
	if *short {
		suite.TestFlags = append(suite.TestFlags, "-test.short")
	}
	if *asJSON {
		suite.JSON, suite.Out = os.Stdout, io.Writer(os.Stderr)
	}
	return suite, check(suite)
}

func check(s *svm.Suite) error {
	switch {
	case len(s.Packages) == 0 && s.Shell == "":
		return errors.New("name packages to test, or a command with -sh")
	case len(s.Packages) > 0 && s.Shell != "":
		return errors.New("packages and -sh exclude each other")
	case s.CPUs < 1 || s.CPUs > 64:
		return fmt.Errorf("-cpus %d: want 1 to 64", s.CPUs)
	case s.MemoryBytes < 512<<20 || s.MemoryBytes > 1<<40:
		return fmt.Errorf("-memory %d: want 512 to %d MiB", s.MemoryBytes>>20, 1<<20)
	case s.Timeout <= 0:
		return fmt.Errorf("-timeout %v: want more than 0", s.Timeout)
	}
	return nil
}
