// Command testreport runs one tier of the tests, or adds the tiers up.
//
//	testreport -tier NAME -o FILE [-events FILE] [-quiet] -- COMMAND ARG...
//	testreport -total FILE...
//
// COMMAND prints `go test -json` events on stdout, which -events keeps. The result of the tier goes
// to -o's FILE. With -quiet the report is not printed: COMMAND prints its own, on stderr. -total
// ends with a line `N passed, N failed, N skipped`.
//
// Exit status: 0 when nothing failed, 1 when something did, 2 for wrong usage.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/fineline-vmm/fineline/guest/testreport"
)

func main() {
	tier := flag.String("tier", "", "name of the tier to run")
	file := flag.String("o", "", "file for the tier's result")
	keep := flag.String("events", "", "file for the events as they come: every test, also those that pass")
	quiet := flag.Bool("quiet", false, "do not print the tier's report")
	total := flag.Bool("total", false, "add up the results in the named files")
	flag.Parse()
	switch {
	case *total && flag.NArg() > 0:
		if testreport.Total(os.Stdout, flag.Args()).Failed > 0 {
			os.Exit(1)
		}
	case !*total && *tier != "" && *file != "" && flag.NArg() > 0:
		if err := run(*tier, *file, *keep, *quiet, flag.Args()); err != nil {
			fmt.Fprintln(os.Stderr, "testreport:", err)
			os.Exit(1)
		}
	default:
		flag.Usage()
		os.Exit(2)
	}
}

func run(tier, file, keep string, quiet bool, command []string) (err error) {
	out := io.Writer(os.Stdout)
	if quiet {
		out = io.Discard
	}
	kept := io.Discard
	if keep != "" {
		f, err := os.Create(keep)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		kept = f
	}
	report := testreport.New(tier, out)
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := report.Read(io.TeeReader(events, kept)); err != nil {
		report.Fail(err.Error())
	}
	if err := cmd.Wait(); err != nil && report.Result().Summary.Failed == 0 {
		report.Fail(fmt.Sprintf("%s: %v", command[0], err))
	}
	result := report.Result()
	fmt.Printf("%s: %v\n", tier, result.Summary)
	if err := testreport.Write(file, result); err != nil {
		return err
	}
	if result.Summary.Failed > 0 {
		return fmt.Errorf("%s: tests failed", tier)
	}
	return nil
}
