package migration

import (
	"fmt"
	"net"
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/postcopy"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// verifyGuest compares the destination's memory with that of a guest which has never moved and made the same
// steps.
func (p *pair) verifyGuest() {
	p.t.Helper()
	if err := p.dst.compareSteps(); err != nil {
		p.t.Error(err)
	}
}

// compareSteps stops the guest's goroutine, and compares its memory as verifyGuest says.
func (m *machine) compareSteps() error {
	m.mu.Lock()
	m.hush()
	m.mu.Unlock()
	mem, err := memory.New(testRegions(m.mem.Pages()), memory.Options{})
	if err != nil {
		return err
	}
	defer mem.Close()
	same := machineOf(mem, &world{}, "never moved")
	if err := same.fill(); err != nil {
		return err
	}
	for same.state.Steps < m.state.Steps {
		same.step()
	}
	if err := differences(mem, m.mem); err != nil {
		return fmt.Errorf("after %d steps: %w", m.state.Steps, err)
	}
	return nil
}

// verifyMachine compares either side's guest with one that has never moved.
func (p *pair) verifyMachine(m *machine) {
	p.t.Helper()
	if err := m.compareSteps(); err != nil {
		p.t.Error(err)
	}
}

func (p *pair) neverConverge() { neverConverge(&p.opts, p.src.mem) }

// neverConverge has pages dirty at the end of each round, more than the guest waits for, and asks for a downtime
// that cannot be reached. What it stores is there already.
func neverConverge(o *SendOptions, mem *memory.Guest) {
	o.Rule = Rule{MaxDowntime: 1, MaxRounds: 3}
	o.Granularity = GranularityPage // more batches
	o.MaxBandwidthBytesPerS = 2 << 20
	o.Progress = func(Progress) {
		for _, r := range mem.Regions() {
			for off := memory.GPA(32 * memory.PageSize); off < memory.GPA(r.SizeBytes); off += memory.PageSize {
				_ = mem.StoreUint64(r.Base+off+8, 0)
			}
		}
	}
}

// TestPostcopy moves the guest first and its memory after it.
func TestPostcopy(t *testing.T) {
	for _, mode := range []wire.Mode{wire.ModePostcopy, wire.ModeHybrid} {
		for _, granularity := range []Granularity{GranularityLine, GranularityPage} {
			t.Run(string(mode)+"/"+string(granularity), func(t *testing.T) {
				p := newPair(t)
				p.neverConverge()
				p.opts.Mode, p.opts.Granularity = mode, granularity
				out := p.migrate()
				if out.sendErr != nil || out.gotErr != nil {
					t.Fatalf("send: %v; receive: %v", out.sendErr, out.gotErr)
				}
				if err := <-p.complete; err != nil {
					t.Fatal(err)
				}
				p.verifyLaw(destination)
				p.verifyGuest()
				if !p.src.released {
					t.Error("the source was not released")
				}
				r := out.sent
				if !r.SwitchedToPostcopy || r.Status != StatusCompleted || r.DowntimeMS <= 0 || r.Faults.Background+r.Faults.Count == 0 {
					t.Errorf("result %+v", r)
				}
				if n := len(r.Rounds); (n == 0) != (mode == wire.ModePostcopy) {
					t.Errorf("%d rounds", n)
				}
			})
		}
	}
}

// TestFaultsOf: what the prediction was worth reaches the result, each figure under its own name.
func TestFaultsOf(t *testing.T) {
	got := faultsOf(postcopy.PagerStats{
		AskedLatency: postcopy.Latency{P50: 9 * time.Microsecond, P99: 10 * time.Microsecond}, FaultsStocked: 11,
		Faults: 1, FaultsCaught: 2, PredictedAsked: 3, PagesPredicted: 4, PredictedRight: 5, PredictedWrong: 6, PagesBackground: 7, PagesLate: 8,
	})
	want := Faults{
		AskedP50US: 9, AskedP99US: 10, Stocked: 11,
		Count: 1, PrefetchHits: 2, Prefetched: 3, PredictedStored: 4, PredictedRight: 5, PredictedWrong: 6, Background: 7, Late: 8,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestHybridConverges: what fits into the downtime is sent in it, and nothing follows the guest.
func TestHybridConverges(t *testing.T) {
	p := newPair(t)
	p.opts.Mode = wire.ModeHybrid
	p.opts.Rule.MaxDowntime = time.Hour
	out := p.migrate()
	if out.sendErr != nil || out.gotErr != nil || out.sent.SwitchedToPostcopy {
		t.Fatalf("send: %v; receive: %v; %+v", out.sendErr, out.gotErr, out.sent)
	}
	p.verifyLaw(destination)
	p.verifyGuest()
}

// TestPostcopyRecovers breaks the network again and again after the guest has moved. It is paused, and goes
// on when its memory does.
func TestPostcopyRecovers(t *testing.T) {
	p := newPair(t)
	p.opts.Mode = wire.ModePostcopy
	p.opts.Granularity = GranularityPage // more to break
	p.opts.PeerTimeout = 2 * time.Second
	p.opts.MaxBandwidthBytesPerS = 4 << 20
	p.listenUnix()
	var moved atomic.Bool
	var written atomic.Int64
	breaks := int64(3)
	p.dst.onRun = func() error {
		moved.Store(true)
		return nil
	}
	p.wrap = func(side string, c net.Conn) net.Conn {
		return &brittleConn{Conn: c, moved: &moved, written: &written, breaks: &breaks, side: side}
	}
	out := p.migrate()
	if out.sendErr != nil || out.gotErr != nil {
		t.Fatalf("send: %v; receive: %v", out.sendErr, out.gotErr)
	}
	if err := <-p.complete; err != nil {
		t.Fatal(err)
	}
	if out.sent.RecoveredTimes == 0 {
		t.Error("no connection was lost")
	}
	p.verifyLaw(destination)
	p.verifyGuest()
}

// brittleConn is closed by the source's write after so many bytes since the guest moved.
type brittleConn struct {
	net.Conn
	moved   *atomic.Bool
	written *atomic.Int64
	breaks  *int64
	side    string
}

func (c *brittleConn) Write(p []byte) (int, error) {
	if c.side == "source" && c.moved.Load() && c.written.Add(int64(len(p))) > 64<<10 && atomic.AddInt64(c.breaks, -1) >= 0 {
		c.written.Store(0)
		c.Conn.Close()
	}
	return c.Conn.Write(p)
}

// touchingSource is a machine whose restore looks at pages.
type touchingSource struct {
	Source
	pages []memory.GPA
}

func (s touchingSource) RestorePages([]byte) ([]memory.GPA, error) { return s.pages, nil }

// TestPostcopySendsWhatTheStateNeeds: pages that the restore looks for are there before it, and no others.
func TestPostcopySendsWhatTheStateNeeds(t *testing.T) {
	const needed, other = 0, memory.PageSize // both were written, the second is not the restore's
	for _, mode := range []wire.Mode{wire.ModePostcopy, wire.ModeHybrid} {
		t.Run(string(mode), func(t *testing.T) {
			p := newPair(t)
			p.opts.Mode = mode
			p.neverConverge()
			p.source = touchingSource{p.src, []memory.GPA{needed, 1 << 50}}
			p.dst.onRestore = func() error {
				here, err := p.dst.mem.TryViewPage(needed, func([]byte) {})
				if err != nil || !here {
					t.Errorf("the page is there: %t, %v", here, err)
				}
				if here, _ := p.dst.mem.TryViewPage(other, func([]byte) {}); here && mode == wire.ModePostcopy {
					t.Error("another page is there, too")
				}
				return nil
			}
			out := p.migrate()
			if out.sendErr != nil || out.gotErr != nil || !out.sent.SwitchedToPostcopy {
				t.Fatalf("send: %v; receive: %v; %+v", out.sendErr, out.gotErr, out.sent)
			}
			if err := <-p.complete; err != nil {
				t.Fatal(err)
			}
			p.verifyLaw(destination)
			p.verifyGuest()
		})
	}
}
