package migration

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"

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
