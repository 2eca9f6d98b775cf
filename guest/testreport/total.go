package testreport

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
)

// Write puts a tier's result into a file.
func Write(path string, r Result) error {
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("result of %s: %w", r.Tier, err)
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

// Total prints all tiers, their failures again, and last one line with the sum. A file that
// can't be read is a tier that did not run, which is a failure.
func Total(out io.Writer, files []string) Summary {
	var sum Summary
	var failures []string
	for _, file := range files {
		r, err := read(file)
		if err != nil {
			r = Result{Tier: file, Summary: Summary{Failed: 1}, Failures: []string{"the tier did not run: " + err.Error()}}
		}
		fmt.Fprintf(out, "%-12s %v\n", r.Tier+":", r.Summary)
		for _, f := range r.Failures {
			failures = append(failures, r.Tier+": "+f)
		}
		sum = sum.Add(r.Summary)
	}
	for _, f := range failures {
		fmt.Fprintf(out, "FAIL  %s\n", f)
	}
	fmt.Fprintln(out, sum)
	return sum
}

func read(file string) (r Result, err error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}
