package qemu

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"
)

// TraceFaults are the arguments with which a destination writes to a file which pages its guest waited for, and
// when they came. The file grows by a line a page: for a run of its own.
func TraceFaults(path string) []string {
	args := []string{"-D", path, "-msg", "timestamp=on"}
	for _, event := range []string{traceRequest, tracePlace, tracePlaceZero} {
		args = append(args, "-trace", event)
	}
	return args
}

const (
	traceRequest   = "postcopy_ram_fault_thread_request"
	tracePlace     = "postcopy_place_page"
	tracePlaceZero = "postcopy_place_page_zero"
)

// ParseFaults reads what TraceFaults has written: how long each page that was asked for took from when QEMU's fault thread
// saw the fault to when the page was put in its place. It leaves out what came without a request, and pages that
// were already there.
func ParseFaults(r io.Reader) ([]time.Duration, error) {
	asked := map[string]time.Duration{} // by host address
	var all []time.Duration
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		at, event, arguments, ok := parseTrace(lines.Text())
		if !ok {
			continue // warnings are in the file, too
		}
		switch event {
		case traceRequest: // Request for HVA=0x7f... rb=... offset=0x... pid=...
			_, rest, _ := strings.Cut(arguments, "HVA=")
			hva, _, ok := strings.Cut(rest, " ")
			if !ok {
				return nil, fmt.Errorf("QEMU's trace: %q has no address", lines.Text())
			}
			if _, twice := asked[hva]; !twice {
				asked[hva] = at
			}
		case tracePlace, tracePlaceZero: // host=0x7f...
			hva := strings.TrimPrefix(arguments, "host=")
			if since, ok := asked[hva]; ok {
				all = append(all, at-since)
				delete(asked, hva)
			}
		}
	}
	return all, lines.Err()
}

// parseTrace reads "PID@SECONDS.MICROSECONDS:EVENT ARGUMENTS".
func parseTrace(line string) (at time.Duration, event, arguments string, ok bool) {
	var pid int
	var seconds, micros int64
	head, rest, ok := strings.Cut(line, ":")
	if n, err := fmt.Sscanf(head, "%d@%d.%d", &pid, &seconds, &micros); !ok || n != 3 || err != nil {
		return 0, "", "", false
	}
	event, arguments, _ = strings.Cut(rest, " ")
	return time.Duration(seconds)*time.Second + time.Duration(micros)*time.Microsecond, event, arguments, true
}
