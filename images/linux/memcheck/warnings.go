package main

import (
	"fmt"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// trouble matches kernel messages of a machine that was damaged: failed
// assertions, lost CPU time seen by the watchdogs, clocks that disagree.
var trouble = regexp.MustCompile(`WARNING:|\bBUG\b|soft lockup|hard LOCKUP|rcu.*stall|` +
	`clocksource.*(unstable|skewed)|Call Trace|Oops|blocked for more than|hung_task`)

// kernelWarnings returns the kernel messages that tell of trouble.
func kernelWarnings() ([]string, error) {
	size, err := unix.Klogctl(unix.SYSLOG_ACTION_SIZE_BUFFER, nil)
	if err != nil {
		return nil, fmt.Errorf("size of the kernel log: %w", err)
	}
	log := make([]byte, size)
	n, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, log)
	if err != nil {
		return nil, fmt.Errorf("read the kernel log: %w", err)
	}
	return findTrouble(string(log[:n])), nil
}

func findTrouble(log string) []string {
	var found []string
	for line := range strings.Lines(log) {
		// Notes on the CPU's own flaws are no sign of damage.
		if trouble.MatchString(line) && !strings.Contains(line, "/hw-vuln/") {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}
