package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/fineline-vmm/fineline/guest/track"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"fineline-guest": main})
}

// TestScripts runs the program as its users do.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:  filepath.Join("testdata", "script"),
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"refused": cmdRefused},
	})
}

// cmdRefused runs the program, which must end with one line on stderr: refused CODE PATTERN [ARG...]
func cmdRefused(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: refused CODE PATTERN [ARG...]")
	}
	err := ts.Exec("fineline-guest", args[2:]...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || strconv.Itoa(exit.ExitCode()) != args[0] {
		ts.Fatalf("%v, want exit code %s", err, args[0])
	}
	stderr := ts.ReadFile("stderr")
	if strings.Count(stderr, "\n") != 1 || !regexp.MustCompile(args[1]).MatchString(stderr) {
		ts.Fatalf("stderr is not one line with %q:\n%s", args[1], stderr)
	}
}

// session gives prepared reports, then an error.
type session struct {
	track.Session
	reports []*track.Report
	err     error
}

func (s *session) Start() error { return nil }

func (s *session) Harvest() (*track.Report, error) {
	if len(s.reports) == 0 {
		return nil, s.err
	}
	r := s.reports[0]
	s.reports = s.reports[1:]
	return r, nil
}

// run shows the windows of a session; each tick and each look at a clock is one second.
func run(t *testing.T, ctx context.Context, asJSON bool, windows int, s *session) (out, notes string, err error) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	ticks := make(chan time.Time)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case ticks <- time.Time{}:
			case <-done:
				return
			}
		}
	}()
	defer close(done)
	now := time.Unix(0, 0)
	tr := tracking{
		session: s, view: newView(asJSON, &stdout), notes: &stderr, windows: windows,
		cpu: func() time.Duration { return time.Duration(now.Unix()) * time.Millisecond },
		now: func() time.Time { now = now.Add(time.Second); return now },
	}
	err = tr.run(ctx, ticks)
	return stdout.String(), stderr.String(), err
}

func pages(lines ...uint64) *track.Report {
	r := &track.Report{}
	for i, mask := range lines {
		r.Pages = append(r.Pages, track.Page{Address: uint64(i) * 4096, Lines: mask})
	}
	return r
}

func TestJSON(t *testing.T) {
	out, _, err := run(t, t.Context(), true, 2, &session{reports: []*track.Report{pages(math.MaxUint64), pages(1, 3), pages(), pages(1)}})
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 3 {
		t.Fatalf("want two windows and a summary:\n%s", out)
	}
	var first row
	if err := json.Unmarshal([]byte(lines[0]), &first); err != nil {
		t.Fatal(err)
	}
	if first.Number != 1 || first.Lines != 3 || first.Pages != 2 || math.Abs(*first.Amplification4K-2*64/3.0) > 1e-9 || first.Seconds <= 0 {
		t.Errorf("the first window is dropped and the second shown: %s", lines[0])
	}
	if strings.Contains(lines[1], "amplification") {
		t.Errorf("an amplification of nothing: %s", lines[1])
	}
	var last struct{ Summary sum }
	if err := json.Unmarshal([]byte(lines[2]), &last); err != nil {
		t.Fatal(err)
	}
	if last.Summary.Windows != 2 || last.Summary.Lines != 3 {
		t.Errorf("summary: %s", lines[2])
	}
}

func TestTable(t *testing.T) {
	out, _, err := run(t, t.Context(), false, 1, &session{reports: []*track.Report{pages(), pages(1, 1)}})
	if err != nil || !strings.Contains(out, "64.00x") || strings.Count(out, "\n") != 3 {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestTheProcessEnds: that is a good end, with what was seen until then.
func TestTheProcessEnds(t *testing.T) {
	gone := fmt.Errorf("wrapped: %w", track.ErrGone)
	out, notes, err := run(t, t.Context(), false, 0, &session{reports: []*track.Report{pages(), pages(1)}, err: gone})
	if err != nil || !strings.Contains(out, "1 windows") || !strings.Contains(notes, "ended") {
		t.Errorf("%v, %q, %q", err, out, notes)
	}
	broken := errors.New("broken")
	if _, _, err := run(t, t.Context(), false, 0, &session{err: broken}); !errors.Is(err, broken) {
		t.Errorf("another error: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	endless := &session{}
	for range 1000 {
		endless.reports = append(endless.reports, pages())
	}
	endless.err = errors.New("not ended by the context")
	if _, _, err := run(t, ctx, true, 0, endless); err != nil {
		t.Errorf("Ctrl-C: %v", err)
	}
}

func TestParseRange(t *testing.T) {
	if r, err := parseRange("7f00-0x7fff"); err != nil || r != (track.Range{Address: 0x7f00, Bytes: 0xff}) {
		t.Errorf("%+v, %v", r, err)
	}
	for _, bad := range []string{"", "1", "2-1", "1-1", "x-y", "1-2-3"} {
		if _, err := parseRange(bad); err == nil {
			t.Errorf("%q passed", bad)
		}
	}
}
