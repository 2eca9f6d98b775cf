package migration

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/coherence/baseline"
	"github.com/fineline-vmm/fineline/coherence/diff"
	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// encoded is an encoder and the applier of what it makes, with a stream between them.
type encoded struct {
	t      testing.TB
	src    *machine
	enc    *encoder
	dst    *applier
	dstMem *memory.Guest
	round  int
	batch  *wire.Batch
	out    *wire.Writer
	in     *wire.Reader
}

func newEncoded(t testing.TB, pages uint64, lines bool, kind Baseline, budgetBytes uint64) *encoded {
	t.Helper()
	e := &encoded{t: t, src: newMachine(t, &world{}, "src", pages), dstMem: newMachine(t, &world{}, "dst", pages).mem}
	e.batch = wire.NewBatch(wire.MaxBatchBytes)
	stream := &bytes.Buffer{}
	e.out, e.in = wire.NewWriter(stream), wire.NewReader(stream)
	e.enc = &encoder{base: newBaselines(e.src.mem, kind, budgetBytes), lines: lines}
	t.Cleanup(e.enc.base.free)
	arrived, err := newArrived(e.dstMem)
	if err != nil {
		t.Fatal(err)
	}
	e.dst = newApplier(arrived)
	return e
}

// send makes a round of the pages and applies it.
func (e *encoded) send(pages *memory.PageSet) (sum tally, bytes int) {
	e.t.Helper()
	b := e.batch
	apply := func() {
		payload := e.payload(b)
		bytes += len(payload)
		if err := e.dst.pagesFrame(payload); err != nil {
			e.t.Fatal(err)
		}
		b.Reset()
	}
	pages.Range(func(gpa memory.GPA) bool {
		if err := e.src.mem.ViewPage(gpa, func(page []byte) { e.enc.encode(gpa, page, b, &sum) }); err != nil {
			e.t.Fatal(err)
		}
		if b.Full() {
			apply()
		}
		return true
	})
	apply()
	e.round++
	if err := e.dst.roundEnd(&wire.RoundEnd{Round: e.round, Pages: sum.pages, ZeroPages: sum.zeroSent}); err != nil {
		e.t.Fatal(err)
	}
	return sum, bytes
}

// payload is what arrives of the batch, good until the next.
func (e *encoded) payload(b *wire.Batch) []byte {
	e.t.Helper()
	b.Seal()
	if err := e.out.Batch(b); err != nil {
		e.t.Fatal(err)
	}
	f, err := e.in.Next(wire.Of(wire.TypePages))
	if err != nil {
		e.t.Fatal(err)
	}
	return f.Payload
}

// wantEqual compares all RAM.
func (e *encoded) wantEqual() {
	e.t.Helper()
	for _, r := range e.src.mem.Regions() {
		for gpa := r.Base; gpa < r.Base+memory.GPA(r.SizeBytes); gpa += memory.PageSize {
			e.wantPage(gpa)
		}
	}
}

func (e *encoded) wantPage(gpa memory.GPA) {
	e.t.Helper()
	var a, b [memory.PageSize]byte
	if err := e.src.mem.ReadAt(gpa, a[:]); err != nil {
		e.t.Fatal(err)
	}
	if err := e.dstMem.ReadAt(gpa, b[:]); err != nil {
		e.t.Fatal(err)
	}
	if a != b {
		e.t.Fatalf("round %d: page %#x differs", e.round, uint64(gpa))
	}
}

// TestEncoder: whatever is written between rounds, with whatever baseline and budget, the destination
// has the same bytes after each round.
func TestEncoder(t *testing.T) {
	const pages = 1200
	for _, lines := range []bool{false, true} {
		for _, kind := range []Baseline{BaselineAuto, BaselineTwin, BaselineHash, BaselineNone} {
			for _, budget := range []uint64{0, baseline.SumsBytes + 20*memory.PageSize, 1 << 30} {
				t.Run(fmt.Sprintf("lines=%v/%s/%d", lines, kind, budget), func(t *testing.T) {
					testEncoder(t, newEncoded(t, pages, lines, kind, budget), budget)
				})
			}
		}
	}
}

func testEncoder(t *testing.T, e *encoded, budget uint64) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 12 {
		dirty := e.src.mem.NewPageSet()
		for range 400 {
			regions := e.src.mem.Regions()
			r := regions[rnd.IntN(len(regions))]
			gpa := r.Base + memory.GPA(rnd.Uint64N(r.SizeBytes/memory.PageSize)*memory.PageSize)
			scribble(t, rnd, e.src.mem, gpa)
			dirty.Add(gpa)
		}
		e.send(dirty)
		e.wantEqual()
		if used := e.enc.base.sizeBytes(); used > budget {
			t.Fatalf("baselines of %d bytes with a budget of %d", used, budget)
		}
	}
}

// scribble changes a page in one of the ways that matter.
func scribble(t *testing.T, rnd *rand.Rand, mem *memory.Guest, gpa memory.GPA) {
	t.Helper()
	err := mem.EditPage(gpa, func(page []byte) error {
		switch rnd.IntN(6) {
		case 0: // nothing: marked dirty, and clean
		case 1: // a byte
			page[rnd.IntN(len(page))]++
		case 2: // some lines
			for range rnd.IntN(20) {
				line := rnd.IntN(64) * 64
				page[line+rnd.IntN(64)] = byte(rnd.Uint32())
			}
		case 3: // everything
			for i := range page {
				page[i] = byte(rnd.Uint32())
			}
		case 4:
			clear(page)
		case 5: // a line to zeros
			clear(page[rnd.IntN(64)*64:][:64])
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestEncoderZeroes follows one page through content, zero and zero again.
func TestEncoderZeroes(t *testing.T) {
	e := newEncoded(t, 16, false, BaselineNone, 0)
	page := e.src.mem.NewPageSet()
	page.Add(0)
	for _, tc := range []struct {
		name    string
		content byte
		want    tally
	}{
		{"zero, never sent", 0, tally{zeroPages: 1}},
		{"content", 1, tally{pages: 1, lines: 64}},
		{"zero after content", 0, tally{zeroPages: 1, zeroSent: 1}},
	} {
		if err := e.src.mem.StoreUint8(memory.PageSize-1, tc.content); err != nil {
			t.Fatal(err)
		}
		got, bytes := e.send(page)
		if got != tc.want {
			t.Errorf("%s: %+v, want %+v", tc.name, got, tc.want)
		}
		if empty := bytes == 0; empty != (tc.want.pages+tc.want.zeroSent == 0) {
			t.Errorf("%s: %d bytes", tc.name, bytes)
		}
		e.wantEqual()
	}
}

// TestEncoderBytes: what a counter in each of many pages costs on the wire, once their twins are there.
func TestEncoderBytes(t *testing.T) {
	const pages = 1024
	e := newEncoded(t, pages, true, BaselineAuto, 1<<30)
	all := e.src.mem.NewPageSet()
	for _, r := range e.src.mem.Regions() {
		all.AddRange(r.Base, r.SizeBytes)
	}
	var sum tally
	var bytes int
	for round := range uint64(5) {
		all.Range(func(gpa memory.GPA) bool {
			return e.src.mem.StoreUint64(gpa+128, 1000+round) == nil
		})
		sum, bytes = e.send(all)
		e.wantEqual()
	}
	// A gap, the line's index, two masks and the byte that changed.
	if want := 5*pages + 2*wire.RecordBytes; bytes > want || sum.lines != pages {
		t.Errorf("%d bytes for %d lines, want at most %d for %d", bytes, sum.lines, want, pages)
	}
	sum, bytes = e.send(all)
	if sum.clean != pages || bytes != 0 {
		t.Errorf("%+v and %d bytes for pages that did not change", sum, bytes)
	}
}

// TestHeavyPagesRest: a page that changes entirely is no longer compared after a while, and later is again.
func TestHeavyPagesRest(t *testing.T) {
	e := newEncoded(t, 16, true, BaselineTwin, 1<<30)
	page := e.src.mem.NewPageSet()
	page.Add(0)
	kinds := map[knowledge]bool{}
	for round := range byte(20) {
		if err := e.src.mem.EditPage(0, func(page []byte) error {
			for i := range page {
				page[i] = round + byte(i) + 1
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		e.send(page)
		e.wantEqual()
		c, i := e.enc.base.at(0)
		kinds[c.known[i]] = true
	}
	if !kinds[isTwin] || !kinds[isResting] {
		t.Errorf("the page was only ever %v", kinds)
	}
	if used := e.enc.base.sizeBytes(); used != memory.PageSize {
		t.Errorf("one twin takes %d bytes", used)
	}
}

// TestThrift: where a page takes no time a page that changes again and again gets no twin, and where the link is slow it does.
func TestThrift(t *testing.T) {
	e := newEncoded(t, 16, true, BaselineAuto, 1<<30)
	page := e.src.mem.NewPageSet()
	page.Add(0)
	known := func(took time.Duration) knowledge {
		e.enc.base.judge(took)
		for value := range uint64(2 * twinAfter) {
			if err := e.src.mem.StoreUint64(64, value+1); err != nil {
				t.Fatal(err)
			}
			e.send(page)
			e.wantEqual()
		}
		c, i := e.enc.base.at(0)
		return c.known[i]
	}
	if got := known(twinWorth - 1); got != isSums {
		t.Errorf("on a fast link the page is known as %d", got)
	}
	if got := known(twinWorth); got != isTwin {
		t.Errorf("on a slow link the page is known as %d", got)
	}
}

// TestFinalRounds: in the pause no memory is taken for baselines, and what follows a round is right nevertheless: lines that go back to
// what they were before it, and pages that were new in it.
func TestFinalRounds(t *testing.T) {
	for _, kind := range []Baseline{BaselineAuto, BaselineTwin, BaselineHash, BaselineNone} {
		t.Run(string(kind), func(t *testing.T) {
			e := newEncoded(t, 16, true, kind, 1<<30)
			pages := e.src.mem.NewPageSet()
			pages.AddRange(0, 4*memory.PageSize)
			round := func(first, second uint64) {
				t.Helper()
				for page, value := range []uint64{first, first, second, second} {
					// A line, and in each second page enough lines that the page goes whole.
					for line := range []int{1, diff.PageLines}[page%2] {
						if err := e.src.mem.StoreUint64(memory.GPA(page*memory.PageSize+line*diff.LineBytes), value); err != nil {
							t.Fatal(err)
						}
					}
				}
				e.send(pages)
				e.wantEqual()
			}
			round(1, 0)
			used := e.enc.base.sizeBytes()
			e.enc.final = true
			for range twinAfter + heavyRounds {
				round(2, 1)
				round(1, 0)
			}
			if now := e.enc.base.sizeBytes(); now != used {
				t.Errorf("%d bytes of baselines before the pause, %d after it", used, now)
			}
		})
	}
}

// BenchmarkRounds is what a source does for pages of which one line each was written: the first round, the
// one that finds them written again, and the ones after it.
func BenchmarkRounds(b *testing.B) {
	const pages = 16384
	m := newMachine(b, &world{}, "m", pages)
	dirty := m.mem.NewPageSet()
	write := func(value uint64) {
		dirty.Range(func(gpa memory.GPA) bool { return m.mem.StoreUint64(gpa+128, value) == nil })
	}
	for _, r := range m.mem.Regions() {
		dirty.AddRange(r.Base, r.SizeBytes)
	}
	write(1)
	batch := wire.NewBatch(wire.MaxBatchBytes)
	var took [3]time.Duration
	n := 0
	for b.Loop() {
		n++
		enc := &encoder{base: newBaselines(m.mem, BaselineAuto, 1<<30), lines: true}
		for round := range took {
			began := time.Now()
			var sum tally
			dirty.Range(func(gpa memory.GPA) bool {
				if batch.Full() {
					batch.Reset()
				}
				return m.mem.ViewPage(gpa, func(page []byte) { enc.encode(gpa, page, batch, &sum) }) == nil
			})
			took[round] += time.Since(began)
			write(uint64(n*len(took) + round + 2))
		}
		enc.base.free()
	}
	for round, name := range []string{"ns/page-first", "ns/page-second", "ns/page-later"} {
		b.ReportMetric(float64(took[round].Nanoseconds())/pages/float64(n), name)
	}
}

// TestEncoderBesideStores: a guest writes while its page is compared and copied. What it wrote last is at the
// destination after the round that follows its last store, which only holds if a baseline is the very bytes
// that were sent (design law 2). A wrong one shows if the last store falls between two reads of the page: thus so
// many bursts.
func TestEncoderBesideStores(t *testing.T) {
	for _, kind := range []Baseline{BaselineAuto, BaselineTwin, BaselineHash} {
		t.Run(string(kind), func(t *testing.T) {
			e := newEncoded(t, 16, true, kind, 1<<30)
			dirty := e.src.mem.NewPageSet()
			dirty.Add(0)
			rng := rand.New(rand.NewPCG(4, uint64(len(kind))))
			for burst := range uint64(5_000) {
				var stored atomic.Bool
				stores := 1 + rng.IntN(200)
				go func() {
					// A few lines, so that the page is never heavy; each word another value.
					for i := range stores {
						_ = e.src.mem.StoreUint64(memory.GPA(i%4*64+i/4%8*8), burst<<8|uint64(i))
					}
					stored.Store(true)
				}()
				for !stored.Load() {
					e.send(dirty)
				}
				e.send(dirty)
				e.wantPage(0)
			}
		})
	}
}
