package migration

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/migration/wire"
)

// stepClock is a clock that only Sleep and the test move.
type stepClock struct {
	now  time.Duration
	naps []time.Duration
}

func (c *stepClock) Now() time.Duration { return c.now }

func (c *stepClock) Sleep(ctx context.Context, d time.Duration) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	c.naps = append(c.naps, d)
	c.now += d
	return nil
}

func (c *stepClock) After(time.Duration) <-chan time.Time { panic("nobody here waits for two things") }

func TestThrottle(t *testing.T) {
	c := &stepClock{now: time.Hour}
	limit := &throttle{clock: c, bytesPerS: 1000}
	for range 11 {
		if err := limit.wait(t.Context(), 500); err != nil {
			t.Fatal(err)
		}
	}
	// The first is free, every other one waits for the 500 bytes before it.
	if took := c.now - time.Hour; took != 5*time.Second {
		t.Errorf("5500 bytes at 1000 a second began their last 500 after %v, want 5 s", took)
	}
	c.now += time.Minute // idle time earns no burst
	naps := len(c.naps)
	for range 3 {
		if err := limit.wait(t.Context(), 500); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(c.naps) - naps; got != 2 {
		t.Errorf("%d waits for three after an idle minute, want 2", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := limit.wait(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestThrottleOff(t *testing.T) {
	c := &stepClock{}
	limit := &throttle{clock: c}
	if err := limit.wait(t.Context(), math.MaxInt); err != nil || c.now != 0 {
		t.Errorf("%v after %v", err, c.now)
	}
	for rate, want := range map[uint64]int{0: 1 << 20, 1 << 30: 1 << 20, 1 << 20: (1 << 20) / 10} {
		if got := (&throttle{bytesPerS: rate}).batchBytes(1 << 20); got != want {
			t.Errorf("at %d a second batches of %d bytes, want %d", rate, got, want)
		}
	}
}

// TestThrottleEndsWithThePause: the limit holds for the rounds, exactly, and not for the downtime. Only
// waiting moves the source's clock.
func TestThrottleEndsWithThePause(t *testing.T) {
	p := newPair(t)
	c := &stepClock{}
	p.src.hooks.clock = c
	const rate = 100_000
	p.opts.MaxBandwidthBytesPerS = rate
	p.opts.Granularity, p.opts.Streams = GranularityPage, 1
	p.opts.Rule.MaxDowntime = time.Hour
	p.src.onSave = func() error { // so that the last round has something to send, however idle the guest was
		for range 64 {
			p.src.step()
		}
		return nil
	}
	out := p.migrate()
	if out.sendErr != nil {
		t.Fatal(out.sendErr)
	}
	var waited time.Duration
	for _, nap := range c.naps {
		waited += nap
	}
	last := out.sent.Rounds[len(out.sent.Rounds)-1]
	// The last batch before the pause is not waited for, and of a round only the batches are counted.
	var rounds uint64
	for _, r := range out.sent.Rounds {
		if !r.Paused {
			rounds += r.Bytes
		}
	}
	least, most := transferTime(rounds-2*rate/10-1000, rate), transferTime(rounds, rate)
	if waited < least || waited > most {
		t.Errorf("waited %v for %d bytes, want %v to %v", waited, rounds, least, most)
	}
	if !last.Paused || last.Pages == 0 || last.MS != 0 {
		t.Errorf("the last round waited: %+v", last)
	}
	p.verifyLaw(destination)
}

func TestRule(t *testing.T) {
	rule := Rule{MaxDowntime: 100 * time.Millisecond, MaxRounds: 10, StallRounds: 3}
	// Each round took 10 us for each page that it sent: what the one before it had left.
	rounds := func(remaining ...uint64) []Round {
		var out []Round
		pages := uint64(20000)
		for _, n := range remaining {
			out = append(out, Round{Pages: pages, RemainingPages: n, took: time.Duration(pages) * 10 * time.Microsecond})
			pages = n
		}
		return out
	}
	for _, tc := range []struct {
		name     string
		overhead time.Duration
		slowed   int
		rounds   []Round
		want     decision
	}{
		{"nothing left", time.Second, 0, rounds(0), stopConverged},
		{"fits, and a round more would shorten the downtime", 0, 0, rounds(9000, 5000), continueRounds},
		{"fits, and there is nothing to gain", 0, 0, rounds(9000, 20), stopConverged},
		{"fits, and may shrink again", 0, 0, rounds(9000, 8000, 8500), continueRounds},
		{"fits, and does not shrink", 0, 0, rounds(9000, 8000, 8500, 8500), stopConverged},
		{"fits at the last round", 0, 0, rounds(9e5, 8e5, 7e5, 6e5, 5e5, 4e5, 3e5, 2e5, 1e5, 5e3), stopConverged},
		{"does not fit", 0, 0, rounds(12000), continueRounds},
		{"the overhead alone is too much", time.Second, 0, rounds(1), continueRounds},
		{"shrinking", 0, 0, rounds(90000, 80000, 70000, 60000, 50000), continueRounds},
		{"stalled", 0, 0, rounds(90000, 50000, 50000, 51000, 49000), slowDown},
		{"stalled before it was slowed down", 0, 3, rounds(90000, 50000, 50000, 51000, 49000), continueRounds},
		{"slowed down and stalled again", 0, 2, rounds(90000, 90000, 50000, 50000, 51000, 49000), slowDown},
		{"too many rounds", 0, 0, rounds(9e5, 8e5, 7e5, 6e5, 5e5, 4e5, 3e5, 2e5, 1e5, 9e4), stopForced},
		{"too few rounds to be stalled", 0, 0, rounds(50000, 50000, 50000), continueRounds},
	} {
		look := outlook{
			rounds: tc.rounds, remainingPages: tc.rounds[len(tc.rounds)-1].RemainingPages,
			overhead: tc.overhead, throttledAt: tc.slowed,
		}
		if got := rule.decide(look); got != tc.want {
			t.Errorf("%s: decision %d, want %d (downtime %v)", tc.name, got, tc.want, look.downtime())
		}
	}
}

// TestTimePerPage: whole pages of the first round, rounds of a few pages and paused ones do not mislead.
func TestTimePerPage(t *testing.T) {
	first := Round{Pages: 1 << 20, took: time.Hour}
	if got := timePerPage([]Round{first}); got != time.Hour>>20 {
		t.Errorf("of the first round alone %v", got)
	}
	rounds := []Round{
		first,
		{Pages: 3000, CleanPages: 1000, ZeroPages: 96, took: 4096 * time.Microsecond},
		{Pages: 0, took: time.Minute, Paused: true},
	}
	if got := timePerPage(rounds); got != time.Microsecond {
		t.Errorf("%v a page, want 1us", got)
	}
	tiny := append(rounds, Round{Pages: 1, took: time.Millisecond})
	if got := timePerPage(tiny); got > 2*time.Microsecond {
		t.Errorf("a round of one page makes it %v a page", got)
	}
	if timePerPage(nil) != 0 {
		t.Error("without rounds")
	}
}

func TestBandwidth(t *testing.T) {
	if got := bandwidth(nil); got != 0 {
		t.Errorf("without rounds %v", got)
	}
	rounds := []Round{
		{Bytes: 1 << 30, took: time.Hour}, // long ago
		{Bytes: 16 << 20, took: time.Second},
		{Bytes: 4096, took: time.Second / 1024},
		{Bytes: 1 << 30, took: 1, Paused: true}, // never acknowledged
	}
	want := (float64(16<<20) + 4096) / (1 + 1.0/1024)
	if got := bandwidth(rounds); math.Abs(got-want) > 1 {
		t.Errorf("%v, want %v", got, want)
	}
	zeros := Round{ZeroPages: 1 << 20, Pages: 1, Bytes: 8192, took: time.Second} // spent on looking
	if got := bandwidth(append(rounds, zeros)); math.Abs(got-want) > 1 {
		t.Errorf("with a round of zero pages %v, want %v", got, want)
	}
	if got := bandwidth([]Round{zeros}); got != 8192 {
		t.Errorf("of a round of zero pages alone %v, want 8192", got)
	}
}

func TestTimeline(t *testing.T) {
	c := &stepClock{now: time.Hour}
	tl := newTimeline(c)
	if err := tl.enter(stageRunning); err == nil {
		t.Error("running right after the start")
	}
	if _, err := tl.downtime(); err == nil {
		t.Error("a downtime before the end")
	}
	for s := stagePreflight; s < stageRunning; s++ {
		c.now += time.Second
		if err := tl.enter(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := tl.enterAt(stageRunning, c.now-1); err == nil {
		t.Error("running before the commit")
	}
	if err := tl.enterAt(stageRunning, c.now+time.Second); err != nil {
		t.Fatal(err)
	}
	if d, err := tl.downtime(); err != nil || d != 3*time.Second { // stop-copy, state, commit
		t.Errorf("downtime %v, %v", d, err)
	}
	c.now += time.Minute // until somebody looks
	for failed, want := range map[bool]time.Duration{false: 7 * time.Second, true: 66 * time.Second} {
		if got := tl.total(failed); got != want {
			t.Errorf("failed %v: total %v, want %v", failed, got, want)
		}
	}
	if got := tl.phases(); len(got) != int(stageRunning) || got[0].Phase != "start" || got[0].MS != 1000 {
		t.Errorf("phases %v", got)
	}
	if err := tl.enter(stageRunning); err == nil {
		t.Error("running twice")
	}
}

func TestMeasureAcrossClocks(t *testing.T) {
	for _, tc := range []struct {
		name   string
		other  bool // the destination has another clock
		ran    time.Duration
		wanted string
		ms     float64
	}{
		{"one clock", false, 60 * time.Second, MeasuredByClock, 10_000},
		{"two clocks", true, 60 * time.Second, MeasuredUpperBound, 20_000},
		{"from the future", false, 80 * time.Second, MeasuredUpperBound, 20_000},
		{"before the commit", false, time.Second, MeasuredUpperBound, 20_000},
	} {
		p := newPair(t)
		c := &stepClock{now: 50 * time.Second}
		s := &sender{hooks: hooks{clock: c, self: &p.src.process}, time: newTimeline(c)}
		for stage := stagePreflight; stage < stageRunning; stage++ {
			if err := s.time.enter(stage); err != nil {
				t.Fatal(err)
			}
		}
		peer := wire.Hello{Process: p.dst.process}
		if tc.other {
			peer.Process.BootID = "elsewhere"
		}
		s.peer = &peer
		if err := s.measure(&wire.Running{MonotonicNS: int64(tc.ran)}, 70*time.Second); err != nil {
			t.Fatal(err)
		}
		if s.result.DowntimeMeasured != tc.wanted || s.result.DowntimeMS != tc.ms {
			t.Errorf("%s: %v ms by %s", tc.name, s.result.DowntimeMS, s.result.DowntimeMeasured)
		}
	}
}

func TestParseAddress(t *testing.T) {
	for text, ok := range map[string]bool{
		"unix:/run/x":           true,
		"unix:relative":         true,
		"unix:./@x":             true,
		"unix:":                 false,
		"unix:@abstract":        false,
		"unix:a\x00b":           false,
		"unix:/a:b":             true,
		"tcp:localhost:80":      true,
		"tcp:127.0.0.1:0":       true,
		"tcp:[::1]:65535":       true,
		"tcp:::1:80":            false,
		"tcp:host":              false,
		"tcp::80":               false,
		"tcp:host:":             false,
		"tcp:host:65536":        false,
		"tcp:host:http":         false,
		"tcp:host:-1":           false,
		"rdma:host:1":           false,
		"/run/x":                false,
		"":                      false,
		"unix:" + longPath(107): true,
		"unix:" + longPath(108): false,
	} {
		a, err := ParseAddress(text)
		if (err == nil) != ok {
			t.Errorf("ParseAddress(%q) = %v, want ok=%v", text, err, ok)
		}
		if err == nil && a.String() != text {
			t.Errorf("ParseAddress(%q) prints as %q", text, a)
		}
		if err != nil && !strings.Contains(err.Error(), "address ") {
			t.Errorf("ParseAddress(%q): %q does not say what it is about", text, err)
		}
	}
}

func longPath(n int) string { return "/" + strings.Repeat("x", n-1) }

func FuzzAddress(f *testing.F) {
	for _, seed := range []string{"unix:/x", "tcp:h:1", "tcp:[::1]:1", "unix:@", "", ":", "tcp:::"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := ParseAddress(text)
		if err != nil {
			return
		}
		b, err := ParseAddress(a.String())
		if err != nil || a != b {
			t.Fatalf("%q becomes %v and then %v, %v", text, a, b, err)
		}
	})
}

func TestListenAddressInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	at, err := ParseAddress("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := at.listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if other, err := at.listen(t.Context()); err == nil {
		other.Close()
		t.Error("two listeners at one path")
	}
	// A killed process leaves its socket file; the next one may have the name.
	ln.(interface{ SetUnlinkOnClose(bool) }).SetUnlinkOnClose(false)
	ln.Close()
	ln, err = at.listen(t.Context())
	if err != nil {
		t.Fatalf("a stale socket is in the way: %v", err)
	}
	ln.Close()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket stayed: %v", err)
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if ln, err := at.listen(t.Context()); err == nil {
		ln.Close()
		t.Error("listened in the place of a file")
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "precious" {
		t.Errorf("the file is %q, %v", text, err)
	}
}
