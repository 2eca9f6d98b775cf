package watch

import (
	"context"
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/coherence/track"
	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/vmm"
	"github.com/fineline-vmm/fineline/vmm/api"
)

// silentSource is a guest that runs no code: the stores come from the test.
type silentSource struct{}

func (silentSource) Start() error                  { return nil }
func (silentSource) Collect(*memory.PageSet) error { return nil }
func (silentSource) Stop() error                   { return nil }

// fakeMachine is memory in two pieces and an end.
type fakeMachine struct {
	t       *testing.T
	mem     *memory.Guest
	lines   *track.Engine
	done    chan struct{}
	outcome vmm.Outcome
}

const secondBase = 16 << 20

func newFakeMachine(t *testing.T) *fakeMachine {
	mem, err := memory.New([]memory.Region{{Base: 0, SizeBytes: 8 << 20}, {Base: secondBase, SizeBytes: 8 << 20}}, memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	m := &fakeMachine{t: t, mem: mem, lines: track.NewEngine(mem, silentSource{}, nil, track.Options{}), done: make(chan struct{})}
	t.Cleanup(func() {
		if err := errors.Join(m.lines.Close(), mem.Close()); err != nil {
			t.Error(err)
		}
	})
	return m
}

func (m *fakeMachine) Memory() *memory.Guest { return m.mem }
func (m *fakeMachine) Lines() *track.Engine  { return m.lines }
func (m *fakeMachine) Done() <-chan struct{} { return m.done }
func (m *fakeMachine) Outcome() vmm.Outcome  { return m.outcome }

func (m *fakeMachine) end(kind vmm.OutcomeKind) {
	m.outcome.Kind = kind
	close(m.done)
}

func (m *fakeMachine) store(gpa memory.GPA, bytes ...byte) {
	m.t.Helper()
	if err := m.mem.WriteAt(gpa, bytes); err != nil {
		m.t.Fatal(err)
	}
}

func (m *fakeMachine) open(r api.TrackRequest) *Watch {
	m.t.Helper()
	r.WindowMS, r.Mode = 1, api.TrackDiff
	w, err := Open(m, r)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		if err := w.Close(); err != nil {
			m.t.Error(err)
		}
	})
	return w
}

func (m *fakeMachine) next(w *Watch) api.TrackWindow {
	m.t.Helper()
	got, err := w.Next(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	return got
}

func value(p *float64) float64 {
	if p == nil {
		return -1
	}
	return *p
}

func TestWindows(t *testing.T) {
	m := newFakeMachine(t)
	m.store(0, 1) // before it begins
	w := m.open(api.TrackRequest{CountBytes: true})
	if got := m.lines.Metrics(); got.Contexts != 1 || got.BaselineBytes == 0 {
		t.Errorf("metrics %+v", got)
	}
	m.store(64, 1, 2)
	m.store(4096+128, 3)
	m.store(secondBase+2<<20, 4)
	first := m.next(w)
	second := m.next(w)
	m.store(64, 1, 2) // what is there already
	m.store(4096, 9)
	third := m.next(w)
	for i, c := range []struct {
		got                          api.TrackWindow
		pages, lines, large, changed uint64
		amp4K, amp2M, amp64          float64
	}{
		{first, 3, 3, 2, 4, 64, 2 * (2 << 20) / (3 * 64.), 3 * 64 / 4.},
		{second, 0, 0, 0, 0, -1, -1, -1},
		{third, 1, 1, 1, 1, 64, 2 << 20 / 64, 64},
	} {
		if c.got.Window != int64(i) || c.got.Pages != c.pages || c.got.Lines != c.lines || c.got.Pages2M != c.large ||
			*c.got.ChangedBytes != c.changed || c.got.UncountedPages != 0 || c.got.InexactPages != 0 || c.got.Detail != nil {
			t.Errorf("window %d: %+v, want %+v", i, c.got, c)
		}
		if value(c.got.Amplification4K) != c.amp4K || value(c.got.Amplification2M) != c.amp2M || value(c.got.Amplification64) != c.amp64 {
			t.Errorf("window %d: amplification %v %v %v, want %v", i, value(c.got.Amplification4K), value(c.got.Amplification2M), value(c.got.Amplification64), c)
		}
	}
	// Each window begins where the one before it ends, and is as long as was asked for.
	if first.StartMS != 0 || second.StartMS < first.LengthMS-0.002 || second.StartMS > first.LengthMS+0.002 || second.LengthMS < 1 {
		t.Errorf("first from %v for %v ms, second from %v for %v ms", first.StartMS, first.LengthMS, second.StartMS, second.LengthMS)
	}
}

func TestDetail(t *testing.T) {
	m := newFakeMachine(t)
	w := m.open(api.TrackRequest{Detail: true, Ranges: []api.TrackRange{
		{Base: secondBase, SizeBytes: 4096}, {Base: 128, SizeBytes: 64}, {Base: 64, SizeBytes: 128},
	}})
	m.store(0, 1) // outside
	m.store(128, 1)
	m.store(secondBase+64, 1)
	m.store(secondBase+63*64, 1)
	got := m.next(w).Detail
	want := &api.TrackDetail{
		Ranges:      []api.TrackRange{{Base: 64, SizeBytes: 128}, {Base: secondBase, SizeBytes: 4096}},
		BucketBytes: 64, Buckets: make([]uint32, 2+64),
		TopPages: []api.TrackPage{{GPA: secondBase, Mask: 1<<63 | 1<<1, Lines: 2}, {GPA: 0, Mask: 1 << 2, Lines: 1}},
	}
	want.Buckets[1], want.Buckets[2+1], want.Buckets[2+63] = 1, 1, 1
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if again := m.next(w).Detail; len(again.TopPages) != 0 || again.Buckets[1] != 0 {
		t.Errorf("the window after: %+v", again)
	}
}

// Whatever the ranges and the lines are, the buckets add up to the lines and each is a whole number of lines.
func TestPiecesAddUp(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		var ranges []track.Range
		at, total := uint64(0), uint64(0)
		for range 1 + rnd.IntN(4) {
			at += 64 * (1 + rnd.Uint64N(1000))
			size := 64 * (1 + rnd.Uint64N(1<<rnd.IntN(20)))
			ranges = append(ranges, track.Range{Base: memory.GPA(at), SizeBytes: size})
			at += size
			total += size
		}
		p := newPieces(ranges)
		if n := uint64(len(p.counts)); n > api.MaxTrackBuckets || n*p.pieceLines*64 < total || (n-1)*p.pieceLines*64 >= total {
			t.Fatalf("%d pieces of %d lines for %d bytes", n, p.pieceLines, total)
		}
		want := make([]uint32, len(p.counts))
		for i, r := range ranges { // the last line of each range, found the slow way
			end := p.begins[i] + r.SizeBytes/64 - 1
			want[end/p.pieceLines]++
			last := r.Base + memory.GPA(r.SizeBytes) - 64
			p.add(track.Page{GPA: last &^ 4095, Lines: 1 << (last % 4096 / 64)})
		}
		if !reflect.DeepEqual(p.counts, want) {
			t.Fatalf("ranges %v: %v, want %v", ranges, p.counts, want)
		}
	}
}

// The pages with the most lines, of equal ones the lower.
func TestTopPages(t *testing.T) {
	w := tally{pieces: newPieces([]track.Range{{Base: 0, SizeBytes: 1 << 20}})}
	for i := range 256 {
		w.add(track.Page{GPA: memory.GPA(i * 4096), Lines: 1<<(i%5+1) - 1})
	}
	for i, p := range w.top {
		if want := uint64(i*5+4) * 4096; p.GPA != want || p.Lines != 5 || p.Mask != 31 {
			t.Errorf("place %d: %+v, want %#x", i, p, want)
		}
	}
	if len(w.top) != api.MaxTrackTopPages {
		t.Errorf("%d pages", len(w.top))
	}
}

func TestWhatEndsAWatch(t *testing.T) {
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name string
		end  func(*fakeMachine)
		ctx  context.Context
		want api.TrackEnd
	}{
		{"power-off", func(m *fakeMachine) { m.end(vmm.EndedByPowerOff) }, t.Context(), api.TrackEnded},
		{"migration", func(m *fakeMachine) { m.end(vmm.EndedByMigration) }, t.Context(), api.TrackMoved},
		{"the server's end", func(*fakeMachine) {}, over, api.TrackEnded},
		{"the server's end after a migration", func(m *fakeMachine) { m.end(vmm.EndedByMigration) }, over, api.TrackMoved},
	} {
		m := newFakeMachine(t)
		w := m.open(api.TrackRequest{})
		w.since = time.Now().Add(time.Hour) // no window ends meanwhile
		c.end(m)
		if _, err := w.Next(c.ctx); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestRefusals(t *testing.T) {
	m := newFakeMachine(t)
	for _, c := range []struct {
		r    api.TrackRequest
		want error
	}{
		{api.TrackRequest{Mode: api.TrackDiff, Ranges: []api.TrackRange{{Base: 8 << 20, SizeBytes: 64}}}, track.ErrBadRange},
		{api.TrackRequest{Mode: api.TrackStores, Ranges: []api.TrackRange{{SizeBytes: 64}}}, track.ErrBadMode},
	} {
		if _, err := Open(m, c.r); !errors.Is(err, c.want) {
			t.Errorf("%+v: %v, want %v", c.r, err, c.want)
		}
	}
	m.end(vmm.EndedByPowerOff)
	if _, err := Open(m, api.TrackRequest{Mode: api.TrackDiff}); !errors.Is(err, api.TrackEnded) {
		t.Errorf("after the end: %v", err)
	}
	if got := m.lines.Metrics().Contexts; got != 0 {
		t.Errorf("%d contexts are left", got)
	}
}
