package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
)

// fakeClocks tell the given readings one after the other.
func fakeClocks(readings ...[2]int64) *clocks {
	return &clocks{now: func() (int64, int64) {
		r := readings[0]
		if len(readings) > 1 {
			readings = readings[1:]
		}
		return r[0], r[1]
	}}
}

func TestAreaFindsDamage(t *testing.T) {
	for _, tt := range []struct {
		name   string
		kind   kind
		damage func(words, old []uint64)
		want   string
	}{
		{"churn flipped bit", churn, func(w, _ []uint64) { w[9] ^= 1 }, "churn line 101 word 1 generation 2"},
		{"churn stale line", churn, func(w, old []uint64) { copy(w[16:24], old[16:24]) }, "churn line 102 word 0 generation 2"},
		{"churn line of another place", churn, func(w, _ []uint64) { copy(w[:8], w[8:16]) }, "churn line 100 word 0 generation 2"},
		{"still lost", still, func(w, _ []uint64) { clear(w[24:32]) }, "still line 103 word 0 generation 0"},
		{"zero written", zero, func(w, _ []uint64) { w[7] = 5 }, "zero line 100 word 7 generation 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newArea(tt.kind, 100, 4)
			var errs []string
			round := func() {
				a.check(0, a.lines(), func(s string) { errs = append(errs, s) })
				a.endRound()
			}
			round()
			old := append([]uint64(nil), a.words...)
			round()
			if len(errs) > 0 {
				t.Fatalf("healthy memory: %q", errs)
			}
			tt.damage(a.words, old)
			round()
			if len(errs) != 1 || !strings.HasPrefix(errs[0], tt.want) {
				t.Errorf("got %q, want one starting with %q", errs, tt.want)
			}
		})
	}
}

func TestClocksFindTimeGoingBack(t *testing.T) {
	var errs []string
	report := func(s string) { errs = append(errs, s) }
	c := fakeClocks([2]int64{10, 1000}, [2]int64{30, 1020}, [2]int64{29, 1019}, [2]int64{31, 1021})
	var previous int64
	for range 4 {
		previous = c.observe(previous, report)
	}
	want := []string{"CLOCK_MONOTONIC went back by 1 ns", "CLOCK_REALTIME went back by 1 ns"}
	if fmt.Sprint(errs) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q", errs, want)
	}
	if gap := c.maxGap.Load(); gap != 20 {
		t.Errorf("longest gap %d, want 20", gap)
	}
}

func TestFindTrouble(t *testing.T) {
	const log = `<6>[ 0.1] Debug: DEBUG build
<4>[ 0.2] RETBleed: WARNING: See https://kernel.org/doc/html/latest/admin-guide/hw-vuln/x.html
<4>[ 1.0] WARNING: CPU: 0 PID: 1 at kernel/time/timekeeping.c:1
<4>[ 2.0] watchdog: BUG: soft lockup - CPU#1 stuck for 22s!
<4>[ 3.0] rcu: INFO: rcu_sched self-detected stall on CPU
<4>[ 4.0] clocksource: timekeeping watchdog on CPU0: Marking clocksource 'tsc' as unstable
<6>[ 5.0] all is well
`
	if got := findTrouble(log); len(got) != 4 {
		t.Errorf("got %d: %q", len(got), got)
	}
}

func newTestConsole(out *bytes.Buffer) *console {
	c := &console{
		job:      new(job),
		out:      out,
		every:    make(chan time.Duration, 1),
		warnings: func() ([]string, error) { return []string{"<4>[ 1.0] WARNING: x"}, nil },
		machine:  func(command string) error { return fmt.Errorf("no %s here", command) },
	}
	c.checker = newChecker(2, 1, fakeClocks([2]int64{2_500_000_000, 9_000_000_000}), c.print)
	return c
}

func TestConsoleObeys(t *testing.T) {
	var out bytes.Buffer
	c := newTestConsole(&out)
	c.serve(strings.NewReader("status\n\nevery 5ms\nevery x\nwarnings\nreboot\nnonsense\nquit\nstatus\n"))
	want := `memcheck seq=1 rounds=0 errors=0 uptime=2.500 realtime=9.000 maxgap_ms=0 jobs=0
memcheck seq=2 unknown command every x
memcheck seq=3 warnings=1
memcheck seq=4 warning <4>[ 1.0] WARNING: x
memcheck seq=5 error no reboot here
memcheck seq=6 unknown command nonsense
`
	if got := out.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if d := <-c.every; d != 5*time.Millisecond {
		t.Errorf("every %v", d)
	}
}

func TestCheckerRunsUntilStopped(t *testing.T) {
	var out bytes.Buffer
	c := newTestConsole(&out)
	k := c.checker
	k.clocks.now = func() (int64, int64) {
		if k.finished() == 3 {
			k.stop.Store(true)
		}
		return 1, 1
	}
	k.run()
	if k.finished() < 3 || k.errors.Load() != 0 {
		t.Errorf("%d rounds, %d errors: %s", k.finished(), k.errors.Load(), out.String())
	}
}

func TestErrorsAreCountedButNotAllPrinted(t *testing.T) {
	var out bytes.Buffer
	c := newTestConsole(&out)
	for range 3 * maxReports {
		c.checker.report("x")
	}
	if n := strings.Count(out.String(), "\n"); n != maxReports || c.checker.errors.Load() != 3*maxReports {
		t.Errorf("printed %d, counted %d", n, c.checker.errors.Load())
	}
}
