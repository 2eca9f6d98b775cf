package migration

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/memory"
)

func TestMigrate(t *testing.T) {
	for _, address := range []string{"unix:" + filepath.Join(t.TempDir(), "s"), "tcp:127.0.0.1:0", "tcp:[::1]:0"} {
		t.Run(address, func(t *testing.T) {
			p := newPair(t)
			var shown []Progress
			p.opts.Progress = func(g Progress) { shown = append(shown, g) }
			p.listen(address)
			out := p.migrate()
			if out.sendErr != nil || out.gotErr != nil {
				t.Fatalf("send: %v; receive: %v", out.sendErr, out.gotErr)
			}
			p.verifyLaw(destination)
			r := out.sent
			if r.Status != StatusCompleted || !r.Converged || r.DowntimeMeasured != MeasuredByClock || r.DowntimeMS <= 0 {
				t.Errorf("result %+v", r)
			}
			last := r.Rounds[len(r.Rounds)-1]
			if !last.Paused || r.PagesSent == 0 || r.LinesSent < r.PagesSent || r.LinesSent > 64*r.PagesSent || r.BytesSent == 0 {
				t.Errorf("result %+v", r)
			}
			if r.BytesInDowntime == 0 || r.BytesInDowntime >= r.BytesSent || r.BandwidthBytesPerS <= 0 {
				t.Errorf("bytes %d, in the downtime %d, bandwidth %v", r.BytesSent, r.BytesInDowntime, r.BandwidthBytesPerS)
			}
			// A third of the pages was never touched and a part was cleared: round one is the rest.
			if first := r.Rounds[0]; first.Pages+first.ZeroPages > testPages*2/3+p.src.pages {
				t.Errorf("round one sent %d pages and %d zero pages", first.Pages, first.ZeroPages)
			}
			if out.got.Pages != r.PagesSent || out.got.Lines != r.LinesSent || out.got.Rounds != len(r.Rounds) || out.got.Generation != 1 {
				t.Errorf("received %+v, sent %+v", out.got, r)
			}
			if len(shown) == 0 || shown[len(shown)-1].Phase != "running" {
				t.Errorf("progress %+v", shown)
			}
		})
	}
}

// TestResultJSON holds the names that users script against (design section 5).
func TestResultJSON(t *testing.T) {
	p := newPair(t)
	out := p.migrate()
	if out.sendErr != nil {
		t.Fatal(out.sendErr)
	}
	text, err := json.Marshal(out.sent)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"status", "mode", "granularity", "total_ms", "downtime_ms", "rounds", "bytes_sent", "bytes_in_downtime",
		"pages_sent", "lines_sent", "faults", "converged", "downtime_measured",
	} {
		if _, ok := fields[name]; !ok {
			t.Errorf("%s is missing in %s", name, text)
		}
	}
	if fields["mode"] != "precopy" || fields["granularity"] != "line" {
		t.Errorf("mode %v, granularity %v", fields["mode"], fields["granularity"])
	}
	round, ok := fields["rounds"].([]any)[0].(map[string]any)
	if !ok {
		t.Fatalf("rounds are %v", fields["rounds"])
	}
	for _, name := range []string{"pages", "lines", "bytes", "ms"} {
		if _, ok := round[name]; !ok {
			t.Errorf("%s is missing in a round: %s", name, text)
		}
	}
}

func TestThereAndBack(t *testing.T) {
	p := newPair(t)
	for generation := uint64(1); generation <= 6; generation++ {
		out := p.migrate()
		if out.sendErr != nil || out.gotErr != nil {
			t.Fatalf("generation %d: send: %v; receive: %v", generation, out.sendErr, out.gotErr)
		}
		p.verifyLaw(p.dst.name)
		if out.got.Generation != generation {
			t.Errorf("generation %d, want %d", out.got.Generation, generation)
		}
		if err := p.l.Close(); err != nil {
			t.Error(err)
		}
		// The way back: each process keeps its journal and gets a machine of its own.
		p.src, p.dst = p.dst, p.src
		p.src.onRun = nil
		fresh := newMachine(t, p.world, p.dst.name, testPages)
		p.dst.machine = fresh
		fresh.onRun = func() error {
			p.compared = differences(p.src.mem, fresh.mem)
			return nil
		}
		t.Cleanup(fresh.end)
		p.opts.Journal = p.src.journal
		p.l, p.dst.ln = nil, nil
	}
}

func TestRefusedBeforePause(t *testing.T) {
	p := newPair(t)
	p.dst.shape = []byte(`{"shape":2}`)
	out := p.migrate()
	var refused *RefusedError
	if !errors.As(out.sendErr, &refused) || refused.Reason == "" {
		t.Errorf("send: %v, want a refusal with its reason", out.sendErr)
	}
	if !isDiscarded(out.gotErr) {
		t.Errorf("receive: %v", out.gotErr)
	}
	if p.src.pauses != 0 {
		t.Error("the guest was paused for a machine that was refused")
	}
	if out.sent.Status != StatusFailed || out.sent.Error == "" {
		t.Errorf("result %+v", out.sent)
	}
	p.verifyLaw(source)
}

func TestNobodyListens(t *testing.T) {
	p := newPair(t)
	at, err := ParseAddress("unix:" + filepath.Join(t.TempDir(), "nobody"))
	if err != nil {
		t.Fatal(err)
	}
	p.opts.hooks = p.src.hooks
	if _, err := Send(t.Context(), p.src, at, p.opts); err == nil {
		t.Error("sent to nobody")
	}
	p.verifyLaw(source)
}

// TestSavingWritesMemory: what SaveState stores to guest memory arrives (design law 3).
func TestSavingWritesMemory(t *testing.T) {
	p := newPair(t)
	const at = memory.GPA(1<<32 + 64)
	p.src.onSave = func() error { return p.src.mem.StoreUint64(at, 0xfeed) }
	out := p.migrate()
	if out.sendErr != nil {
		t.Fatal(out.sendErr)
	}
	p.verifyLaw(destination)
	if v, err := p.dst.mem.LoadUint64(at); err != nil || v != 0xfeed {
		t.Errorf("loaded %#x, %v", v, err)
	}
}

// TestDirtyDestination: what Prepare left in RAM does not shine through pages that are never sent.
func TestDirtyDestination(t *testing.T) {
	p := newPair(t)
	p.dst.onPrepare = func() error {
		for _, r := range p.dst.mem.Regions() {
			for off := uint64(0); off < r.SizeBytes; off += memory.PageSize {
				if err := p.dst.mem.StoreUint64(r.Base+memory.GPA(off), 1); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if out := p.migrate(); out.sendErr != nil {
		t.Fatal(out.sendErr)
	}
	p.verifyLaw(destination)
}

// TestCancel cancels at every step that the two machines can see.
func TestCancel(t *testing.T) {
	for _, tc := range []struct {
		name   string
		arm    func(p *pair, cancel func() error)
		wanted string
	}{
		{"prepare", func(p *pair, c func() error) { p.dst.onPrepare = c }, source},
		{"precopy", func(p *pair, c func() error) {
			p.opts.Progress = func(g Progress) {
				if g.Phase == "precopy" {
					_ = c()
				}
			}
		}, source},
		{"pause", func(p *pair, c func() error) { p.src.onPause = c }, source},
		{"save", func(p *pair, c func() error) { p.src.onSave = c }, source},
		{"restore", func(p *pair, c func() error) { p.dst.onRestore = c }, source},
		{"run", func(p *pair, c func() error) {
			before := p.dst.onRun
			p.dst.onRun = func() error { return errors.Join(before(), c()) }
		}, destination},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPair(t)
			var cancel context.CancelFunc
			p.ctx, cancel = context.WithCancel(t.Context())
			defer cancel()
			p.listenUnix()
			tc.arm(p, func() error {
				cancel()
				return nil
			})
			out := p.migrate()
			p.verifyLaw(tc.wanted)
			if !out.received {
				t.Error("the destination went on waiting")
			}
			if tc.wanted == destination {
				if out.sendErr != nil || out.sent.Status != StatusCompleted {
					t.Errorf("%v, %+v", out.sendErr, out.sent)
				}
				return
			}
			if !errors.Is(out.sendErr, context.Canceled) || out.sent.Status != StatusCancelled {
				t.Errorf("%v, status %s", out.sendErr, out.sent.Status)
			}
			var aborted *AbortedError
			if tc.name != "prepare" && (!errors.As(out.gotErr, &aborted) || !aborted.Cancelled) {
				t.Errorf("receive: %v, want a cancel by the peer", out.gotErr)
			}
		})
	}
}

func TestCancelAtTheDestination(t *testing.T) {
	p := newPair(t)
	p.listenUnix()
	p.dst.onRestore = func() error {
		go p.l.Close()
		<-p.l.ctx.Done()
		return nil
	}
	out := p.migrate()
	p.verifyLaw(source)
	if out.sendErr == nil || !isDiscarded(out.gotErr) {
		t.Errorf("send: %v; receive: %v", out.sendErr, out.gotErr)
	}
}

func TestTimeout(t *testing.T) {
	p := newPair(t)
	p.opts.Timeout = 1
	out := p.migrate()
	if !errors.Is(out.sendErr, ErrTimeout) || out.sent.Status != StatusFailed {
		t.Errorf("%v, %+v", out.sendErr, out.sent)
	}
	p.verifyLaw(source)
}

func TestTimeoutIgnored(t *testing.T) {
	p := newPair(t)
	p.opts.Timeout, p.opts.TimeoutStrategy = time.Minute, TimeoutIgnore
	c := &stepClock{}
	p.src.hooks.clock = c
	p.opts.Progress = func(g Progress) {
		if g.Phase == "precopy" {
			c.now += 2 * time.Minute
		}
	}
	p.opts.Rule = Rule{MaxDowntime: 1, MaxRounds: 1 << 30, StallRounds: 1 << 30}
	out := p.migrate()
	if out.sendErr != nil {
		t.Fatal(out.sendErr)
	}
	p.verifyLaw(destination)
	if len(out.sent.Rounds) > 3 {
		t.Errorf("%d rounds after the timeout", len(out.sent.Rounds))
	}
}

func TestNotConverging(t *testing.T) {
	p := newPair(t)
	p.opts.Rule = Rule{MaxDowntime: 1, MaxRounds: 6, StallRounds: 6}
	// A guest that writes in every round: as long as the source has not paused it.
	p.opts.Progress = func(g Progress) {
		if g.Phase == "precopy" {
			_ = p.src.mem.StoreUint64(0, 1)
		}
	}
	out := p.migrate()
	if out.sendErr != nil || out.sent.Converged || len(out.sent.Rounds) < 6 {
		t.Errorf("%v, %+v", out.sendErr, out.sent)
	}
	p.verifyLaw(destination)
}

// TestFailures: every call of a machine that can fail does, once.
func TestFailures(t *testing.T) {
	broken := func() error { return errors.New("broken") }
	for _, tc := range []struct {
		name   string
		arm    func(p *pair)
		wanted string
	}{
		{"pause", func(p *pair) { p.src.onPause = broken }, source},
		{"save", func(p *pair) { p.src.onSave = broken }, source},
		{"restore", func(p *pair) { p.dst.onRestore = broken }, source},
		{"run", func(p *pair) { p.dst.onRun = broken }, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPair(t)
			tc.arm(p)
			out := p.migrate()
			p.verifyLaw(tc.wanted)
			if out.sendErr == nil || out.gotErr == nil {
				t.Errorf("send: %v; receive: %v", out.sendErr, out.gotErr)
			}
			if tc.wanted == "" {
				if !errors.Is(out.sendErr, ErrNotStarted) || !errors.Is(out.gotErr, ErrNotStarted) || !p.src.released {
					t.Errorf("send: %v; receive: %v; released: %v", out.sendErr, out.gotErr, p.src.released)
				}
			}
		})
	}
}
