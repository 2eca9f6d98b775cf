package migration

import (
	"context"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/memory"
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
	first, last := out.sent.Rounds[0], out.sent.Rounds[len(out.sent.Rounds)-1]
	// The last batch of the round is not waited for, and ROUND_END is not counted.
	least, most := transferTime(first.Bytes-2*rate/10, rate), transferTime(first.Bytes, rate)
	if waited < least || waited > most {
		t.Errorf("waited %v for %d bytes, want %v to %v", waited, first.Bytes, least, most)
	}
	if !last.Paused || last.Pages == 0 || last.MS != 0 {
		t.Errorf("the last round waited: %+v", last)
	}
	p.verifyLaw(destination)
}

func TestRule(t *testing.T) {
	rule := Rule{MaxDowntime: 100 * time.Millisecond, MaxRounds: 10, StallRounds: 3}
	rounds := func(remaining ...uint64) []Round {
		var out []Round
		for _, n := range remaining {
			out = append(out, Round{RemainingPages: n})
		}
		return out
	}
	const mb = 1e6
	for _, tc := range []struct {
		name string
		rule Rule
		look outlook
		want decision
	}{
		{"nothing left", rule, outlook{rounds: rounds(0)}, stopConverged},
		{"fits", rule, outlook{rounds: rounds(100), remainingPages: 100, bytesPerS: 5 * mb}, stopConverged},
		{"does not fit", rule, outlook{rounds: rounds(200), remainingPages: 200, bytesPerS: 5 * mb}, continueRounds},
		{"the overhead alone is too much", rule,
			outlook{rounds: rounds(1), remainingPages: 1, bytesPerS: 1000 * mb, overhead: time.Second}, continueRounds},
		{"bandwidth unknown", rule, outlook{rounds: rounds(1), remainingPages: 1}, continueRounds},
		{"shrinking", rule,
			outlook{rounds: rounds(9000, 8000, 7000, 6000, 5000), remainingPages: 5000, bytesPerS: mb}, continueRounds},
		{"stalled", rule,
			outlook{rounds: rounds(9000, 5000, 5000, 5100, 4900), remainingPages: 4900, bytesPerS: mb}, stopForced},
		{"too many rounds", rule,
			outlook{rounds: rounds(9e5, 8e5, 7e5, 6e5, 5e5, 4e5, 3e5, 2e5, 1e5, 9e4), remainingPages: 9e4, bytesPerS: mb}, stopForced},
		{"too few rounds to be stalled", rule,
			outlook{rounds: rounds(5000, 5000, 5000), remainingPages: 5000, bytesPerS: mb}, continueRounds},
	} {
		if got := tc.rule.decide(tc.look); got != tc.want {
			t.Errorf("%s: decision %d, want %d", tc.name, got, tc.want)
		}
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

// TestEncoderZeroes follows one page through content, zero and zero again.
func TestEncoderZeroes(t *testing.T) {
	w := &world{}
	m := newMachine(t, w, "m", 16)
	e := newPageEncoder(m.mem)
	content := make([]byte, memory.PageSize)
	content[memory.PageSize-1] = 1
	for _, tc := range []struct {
		name string
		page []byte
		want tally
	}{
		{"zero, never sent", zeroPage[:], tally{zeroPages: 1}},
		{"content", content, tally{pages: 1, lines: 64}},
		{"zero after content", zeroPage[:], tally{zeroPages: 1, zeroSent: 1}},
	} {
		b := wire.NewBatch(wire.MaxBatchBytes)
		var got tally
		e.encode(0, tc.page, b, &got)
		b.Seal()
		if got != tc.want {
			t.Errorf("%s: %+v, want %+v", tc.name, got, tc.want)
		}
		if empty := b.SizeBytes() == 0; empty != (tc.want.pages+tc.want.zeroSent == 0) {
			t.Errorf("%s: %d bytes", tc.name, b.SizeBytes())
		}
	}
}

// TestPumpCopies: what is in the batch is what the page was when it was gathered (design law 2).
func TestPumpCopies(t *testing.T) {
	page := make([]byte, memory.PageSize)
	page[0] = 7
	b := wire.NewBatch(wire.MaxBatchBytes)
	taken := b.AppendPage(1, page)
	page[0] = 8
	if taken[0] != 7 {
		t.Error("the batch follows the guest's stores")
	}
}

// TestPumpAllocations: moving many pages allocates no more than moving few.
func TestPumpAllocations(t *testing.T) {
	m := newMachine(t, &world{}, "m", 4096)
	pages := m.mem.NewPageSet()
	for _, r := range m.mem.Regions() {
		for off := uint64(0); off < r.SizeBytes; off += memory.PageSize {
			gpa := r.Base + memory.GPA(off)
			if err := m.mem.StoreUint64(gpa, 1); err != nil {
				t.Fatal(err)
			}
			pages.Add(gpa)
		}
	}
	out := wire.NewWriter(io.Discard)
	p := newPump(m.mem, newPageEncoder(m.mem), wire.MaxBatchBytes, func(_ context.Context, b *wire.Batch) error {
		return out.Batch(b)
	})
	allocs := testing.AllocsPerRun(3, func() {
		if sum, err := p.run(t.Context(), pages); err != nil || sum.pages != 4096 {
			t.Fatalf("%+v, %v", sum, err)
		}
	})
	if allocs > 128 {
		t.Errorf("%v allocations for 4096 pages in 17 batches", allocs)
	}
}

func TestPumpStopsAtFirstError(t *testing.T) {
	m := newMachine(t, &world{}, "m", 4096)
	pages := m.mem.NewPageSet()
	for i := range memory.GPA(2048) {
		pages.Add(i * memory.PageSize)
		if err := m.mem.StoreUint64(i*memory.PageSize, 1); err != nil {
			t.Fatal(err)
		}
	}
	broken := errors.New("broken")
	calls := 0
	p := newPump(m.mem, newPageEncoder(m.mem), wire.MinBatchBytes, func(context.Context, *wire.Batch) error {
		calls++
		return broken
	})
	for range 2 { // all batches are back: a second run is like the first
		calls = 0
		if _, err := p.run(t.Context(), pages); !errors.Is(err, broken) || calls != 1 {
			t.Errorf("%v after %d writes", err, calls)
		}
	}
}

func BenchmarkPump(b *testing.B) {
	m := newMachine(b, &world{}, "m", 16384)
	pages := m.mem.NewPageSet()
	for _, r := range m.mem.Regions() {
		for off := uint64(0); off < r.SizeBytes; off += memory.PageSize {
			gpa := r.Base + memory.GPA(off)
			if err := m.mem.StoreUint64(gpa, uint64(gpa)+1); err != nil {
				b.Fatal(err)
			}
			pages.Add(gpa)
		}
	}
	out := wire.NewWriter(io.Discard)
	p := newPump(m.mem, newPageEncoder(m.mem), wire.MaxBatchBytes, func(_ context.Context, batch *wire.Batch) error {
		return out.Batch(batch)
	})
	b.SetBytes(16384 * memory.PageSize)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.run(b.Context(), pages); err != nil {
			b.Fatal(err)
		}
	}
}
