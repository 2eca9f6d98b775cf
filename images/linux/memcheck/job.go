package main

import (
	"bytes"
	"fmt"
	"os/exec"
	"sync/atomic"
)

// job is a shell command that must print the same whenever it runs: processes, pipes and files beside the
// checker's own memory.
type job struct {
	command string
	run     func(command string) ([]byte, error)
	report  func(text string)
	stop    *atomic.Bool
	done    atomic.Uint64 // runs that ended as the first one
	want    []byte
}

func runShell(command string) ([]byte, error) {
	return exec.Command("sh", "-c", command).CombinedOutput()
}

// repeat runs the command again and again until stop is set.
func (j *job) repeat() {
	for first := true; !j.stop.Load(); first = false {
		out, err := j.run(j.command)
		switch {
		case err != nil:
			j.report(fmt.Sprintf("job: %v: %.100q", err, out))
		case first:
			j.want = out
		case !bytes.Equal(out, j.want):
			j.report(fmt.Sprintf("job: %.100q in place of %.100q", out, j.want))
		default:
			j.done.Add(1)
		}
	}
}
