package migration

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// newTestPump sends whole pages and keeps no baselines.
func newTestPump(m *machine, batchBytes int, write func(context.Context, *wire.Batch) error) *pump {
	enc := &encoder{base: newBaselines(m.mem, BaselineNone, 0)}
	return newPump(m.mem, enc, batchBytes, &atomic.Uint64{}, write)
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
	p := newTestPump(m, wire.MaxBatchBytes, func(_ context.Context, b *wire.Batch) error {
		return out.Batch(b)
	})
	allocs := testing.AllocsPerRun(3, func() {
		if sum, err := p.run(t.Context(), &parts{pages: pages}); err != nil || sum.pages != 4096 {
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
	p := newTestPump(m, wire.MinBatchBytes, func(context.Context, *wire.Batch) error {
		calls++
		return broken
	})
	for range 2 { // all batches are back: a second run is like the first
		calls = 0
		if _, err := p.run(t.Context(), &parts{pages: pages}); !errors.Is(err, broken) || calls != 1 {
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
	p := newTestPump(m, wire.MaxBatchBytes, func(_ context.Context, batch *wire.Batch) error {
		return out.Batch(batch)
	})
	b.SetBytes(16384 * memory.PageSize)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.run(b.Context(), &parts{pages: pages}); err != nil {
			b.Fatal(err)
		}
	}
}

// TestCompression: auto compresses only what a slow link keeps waiting.
func TestCompression(t *testing.T) {
	for _, tc := range []struct {
		choice     Compression
		waited     bool
		rate       uint64
		compressed bool
	}{
		{CompressionNone, true, 1e6, false},
		{CompressionZstd, false, 0, true},
		{CompressionAuto, true, 1e6, true},
		{CompressionAuto, false, 1e6, false}, // the link is not what is slow
		{CompressionAuto, true, 2e9, false},
		{CompressionAuto, true, 0, false}, // not known yet
	} {
		c := compressor{choice: tc.choice}
		if tc.rate > 0 {
			c.took(int(tc.rate), time.Second)
		}
		b := wire.NewBatch(wire.MaxBatchBytes)
		page := make([]byte, memory.PageSize)
		page[0] = 1
		b.AppendPage(1, page)
		b.Seal()
		c.compress(b, tc.waited)
		if got := b.WireBytes() < b.SizeBytes(); got != tc.compressed {
			t.Errorf("%+v: %d bytes of %d", tc, b.WireBytes(), b.SizeBytes())
		}
	}
}

// TestCompressed moves a guest with every batch compressed.
func TestCompressed(t *testing.T) {
	for _, mode := range []wire.Mode{wire.ModePrecopy, wire.ModePostcopy} {
		p := newPair(t)
		p.opts.Compression, p.opts.Mode = CompressionZstd, mode
		if out := p.migrate(); out.sendErr != nil || out.gotErr != nil {
			t.Fatalf("send: %v; receive: %v", out.sendErr, out.gotErr)
		}
		if mode.AfterCommit() {
			if err := <-p.complete; err != nil {
				t.Fatal(err)
			}
		}
		p.verifyLaw(destination)
		p.verifyGuest()
	}
}
