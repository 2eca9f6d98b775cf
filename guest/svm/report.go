package svm

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/fineline-vmm/fineline/guest/svm/channel"
	"github.com/fineline-vmm/fineline/guest/testreport"
)

// Summary counts tests, subtests included. A package that ended badly with no
// failed test of its own counts as one failure.
type Summary = testreport.Summary

// report prints results as they come, one package after the other. Its methods
// are called by one goroutine at a time.
type report struct {
	out     io.Writer
	json    io.Writer
	verbose bool

	total   Summary
	current Summary
	began   time.Time
	output  map[string]*strings.Builder // of running tests, by name; "" is the package's own
}

func newReport(out, json io.Writer, verbose bool) *report {
	return &report{out: out, json: json, verbose: verbose}
}

// begin starts a package.
func (r *report) begin(string) {
	r.current = Summary{}
	r.began = time.Now()
	r.output = map[string]*strings.Builder{}
}

// event takes one event and its JSON line.
func (r *report) event(e event, line []byte) {
	if r.json != nil {
		_, _ = r.json.Write(line)
	}
	switch e.Action {
	case "output":
		r.take(e)
	case "pass", "fail", "skip":
		if e.Test != "" {
			r.finish(e)
		}
	}
}

func (r *report) take(e event) {
	if r.verbose {
		_, _ = io.WriteString(r.out, e.Output)
	}
	b := r.output[e.Test]
	if b == nil {
		b = &strings.Builder{}
		r.output[e.Test] = b
	}
	b.WriteString(e.Output)
}

// finish counts a test and prints why it failed or was skipped.
func (r *report) finish(e event) {
	text := ""
	if b := r.output[e.Test]; b != nil {
		text = b.String()
	}
	delete(r.output, e.Test)
	switch e.Action {
	case "pass":
		r.current.Passed++
	case "skip":
		r.current.Skipped++
		fmt.Fprintf(r.out, "SKIP  %s %s: %s\n", e.Package, e.Test, testreport.Reason(text))
	case "fail":
		r.current.Failed++
		fmt.Fprintf(r.out, "FAIL  %s %s (%.2f s)\n", e.Package, e.Test, e.Elapsed)
		if !r.verbose {
			_, _ = io.WriteString(r.out, indent(text))
		}
	}
}

// end closes a package whose binary has ended.
func (r *report) end(pkg string, exit channel.Exit) {
	if exit.Code != 0 && r.current.Failed == 0 {
		r.current.Failed++
		r.dump()
	} else if r.current.Failed > 0 {
		r.dumpUnfinished()
	}
	word, how := "ok  ", ""
	if r.current.Failed > 0 {
		word, how = "FAIL", ", "+describe(exit)
	}
	fmt.Fprintf(r.out, "%s  %s  %.1f s  (%v%s)\n", word, pkg, time.Since(r.began).Seconds(), r.current, how)
	r.total = r.total.Add(r.current)
	r.current = Summary{}
}

// broken counts a package that could not be run to its end.
func (r *report) broken(pkg string, err error) {
	r.dump()
	fmt.Fprintf(r.out, "FAIL  %s  %v\n", pkg, err)
	r.current.Failed++
	r.total = r.total.Add(r.current)
	r.current, r.output = Summary{}, nil
}

// dump prints all output that belongs to no finished test: a panic, a data
// race, what TestMain said.
func (r *report) dump() {
	if b := r.output[""]; b != nil && !r.verbose {
		_, _ = io.WriteString(r.out, indent(b.String()))
	}
	r.dumpUnfinished()
}

// dumpUnfinished prints the output of tests that never ended.
func (r *report) dumpUnfinished() {
	if r.verbose {
		return
	}
	for test, b := range r.output {
		if test != "" {
			fmt.Fprintf(r.out, "FAIL  %s did not end\n%s", test, indent(b.String()))
		}
	}
}

// summary prints and returns the totals.
func (r *report) summary() Summary {
	fmt.Fprintf(r.out, "svm: %v\n", r.total)
	return r.total
}

func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("    " + line)
	}
	if text != "" && !strings.HasSuffix(text, "\n") {
		b.WriteByte('\n')
	}
	return b.String()
}
