package testreport

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Summary counts tests.
type Summary struct {
	Passed  int `json:"passed"`
	Failed  int `json:"failed"`
	Skipped int `json:"skipped"`
}

func (s Summary) String() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", s.Passed, s.Failed, s.Skipped)
}

// Add returns the sum.
func (s Summary) Add(o Summary) Summary {
	return Summary{s.Passed + o.Passed, s.Failed + o.Failed, s.Skipped + o.Skipped}
}

// Result is what a tier leaves for Total.
type Result struct {
	Tier     string   `json:"tier"`
	Summary  Summary  `json:"summary"`
	Failures []string `json:"failures"`
}

// event is one line of test2json (`go doc test2json`); a build failure names its package in
// ImportPath.
type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Output     string
	Elapsed    float64 // seconds
}

// Report turns events into a Result and prints what a person wants to see: each package, each
// failure with its output, each skip with its reason.
type Report struct {
	out    io.Writer
	result Result
	output map[testID]*strings.Builder // of tests that have not ended; Test "" is the package's own
	failed map[string]int              // failed tests of packages that have not ended
}

type testID struct{ pkg, test string }

// New returns an empty report that prints to out.
func New(tier string, out io.Writer) *Report {
	return &Report{
		out: out, result: Result{Tier: tier}, output: map[testID]*strings.Builder{}, failed: map[string]int{},
	}
}

// Read takes events until r ends. A line that is no event is printed as it is: the go command
// mixes its own words in.
func (r *Report) Read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil || e.Action == "" {
				fmt.Fprintf(r.out, "%s", line)
			} else {
				r.take(e)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read test events: %w", err)
		}
	}
}

// Fail counts a failure that no event shows.
func (r *Report) Fail(what string) {
	r.result.Summary.Failed++
	r.result.Failures = append(r.result.Failures, what)
	fmt.Fprintf(r.out, "FAIL  %s\n", what)
}

// Result returns the counts so far.
func (r *Report) Result() Result { return r.result }

func (r *Report) take(e event) {
	id := testID{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "output":
		if r.output[id] == nil {
			r.output[id] = &strings.Builder{}
		}
		r.output[id].WriteString(e.Output)
	case "pass", "fail", "skip":
		text := ""
		if b := r.output[id]; b != nil {
			text = b.String()
			delete(r.output, id)
		}
		if e.Test != "" {
			r.endTest(e, text)
		} else {
			r.endPackage(e, text)
		}
	}
}

func (r *Report) endTest(e event, output string) {
	switch e.Action {
	case "pass":
		r.result.Summary.Passed++
	case "skip":
		r.result.Summary.Skipped++
		fmt.Fprintf(r.out, "SKIP  %s %s: %s\n", e.Package, e.Test, Reason(output))
	case "fail":
		r.failed[e.Package]++
		r.Fail(e.Package + " " + e.Test)
		fmt.Fprint(r.out, indent(output))
	}
}

func (r *Report) endPackage(e event, output string) {
	if e.Action == "fail" {
		if r.failed[e.Package] == 0 {
			r.Fail(e.Package)
			fmt.Fprint(r.out, indent(output))
		}
		r.unfinished(e.Package)
	}
	if e.Action == "pass" {
		fmt.Fprintf(r.out, "ok    %s  %.1f s\n", e.Package, e.Elapsed)
	}
	delete(r.failed, e.Package)
}

// unfinished prints the output of tests that a panic or a timeout cut short.
func (r *Report) unfinished(pkg string) {
	for id, b := range r.output {
		if id.pkg == pkg {
			fmt.Fprintf(r.out, "FAIL  %s %s did not end\n%s", id.pkg, id.test, indent(b.String()))
			delete(r.output, id)
		}
	}
}

// Reason is what a test that skipped has said, in one line.
func Reason(output string) string {
	var words []string
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			words = append(words, line)
		}
	}
	if len(words) == 0 {
		return "no reason given"
	}
	return strings.Join(words, " ")
}

func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("      " + strings.TrimSuffix(line, "\n") + "\n")
	}
	return b.String()
}
