package migration

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// pumpBatches is how many batches circulate in a pump: one is filled, one is written, one waits between them.
const pumpBatches = 3

// pumpBatchBytes: what is gathered is then summed, written, read, summed and stored, all from the second cache. Batches of 1 MiB took
// 4 ms more and a tenth longer in all, of a guest that writes one line in each of 4096 pages.
const pumpBatchBytes = 256 << 10

// parts hands out the pages of a round to the pumps, part by part in rising order, so that those of
// each stream ascend.
type parts struct {
	pages *memory.PageSet
	next  atomic.Int64
}

func (p *parts) take() (part int, ok bool) {
	part = int(p.next.Add(1)) - 1
	return part, part < p.pages.Parts()
}

// pump moves pages from guest memory to one stream: a goroutine gathers into batches, another one
// writes them, so that comparing, copying and checksum run beside the system call. It allocates its
// batches once.
type pump struct {
	mem  *memory.Guest
	enc  *encoder
	free chan *wire.Batch
	comp compressor
	// write puts a sealed batch on the wire. It runs in the pump's second goroutine.
	write func(context.Context, *wire.Batch) error
	// gathered counts the pages of this round that all pumps have put into finished batches.
	gathered *atomic.Uint64
}

func newPump(mem *memory.Guest, enc *encoder, batchBytes int, gathered *atomic.Uint64, write func(context.Context, *wire.Batch) error) *pump {
	p := &pump{mem: mem, enc: enc, free: make(chan *wire.Batch, pumpBatches), write: write, gathered: gathered}
	for range pumpBatches {
		p.free <- wire.NewBatch(batchBytes)
	}
	return p
}

// runPumps sends the pages over all streams and returns what each sent. All batches are back when it returns.
func runPumps(ctx context.Context, pumps []*pump, pages *memory.PageSet) ([]tally, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := &parts{pages: pages}
	sums := make([]tally, len(pumps))
	var running sync.WaitGroup
	for i, p := range pumps {
		running.Go(func() {
			var err error
			if sums[i], err = p.run(ctx, work); err != nil {
				cancel(err)
			}
		})
	}
	running.Wait()
	return sums, context.Cause(ctx)
}

// run sends pages until there are none.
func (p *pump) run(ctx context.Context, work *parts) (tally, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	full := make(chan *wire.Batch, pumpBatches) // never blocks: it holds all there are
	written := make(chan struct{})
	go func() {
		defer close(written)
		for b := range full {
			// After a failure the rest is only returned: the gatherer stops at its next batch.
			if ctx.Err() == nil {
				began := time.Now()
				if err := p.write(ctx, b); err != nil {
					cancel(err)
				}
				p.comp.took(b.WireBytes(), time.Since(began))
			}
			p.release(b)
		}
	}()
	g := gatherer{pump: p, ctx: ctx, full: full}
	err := g.gather(work)
	close(full)
	<-written
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return g.sum, err
}

func (p *pump) release(b *wire.Batch) {
	b.Reset()
	p.free <- b
}

// gatherer fills batches for one run of a pump.
type gatherer struct {
	*pump
	ctx  context.Context
	full chan<- *wire.Batch

	batch  *wire.Batch // being filled, or nil
	waited bool        // for the link, to get it
	at     memory.GPA
	seen   uint64 // pages since the last hand-over
	sum    tally
}

// gather fills batches with the pages and hands them on.
func (g *gatherer) gather(work *parts) (err error) {
	// One closure for all pages: nothing is allocated per page.
	encode := func(page []byte) { g.enc.encode(g.at, page, g.batch, &g.sum) }
	each := func(gpa memory.GPA) bool {
		err = g.page(gpa, encode)
		return err == nil
	}
	for err == nil {
		part, ok := work.take()
		if !ok {
			break
		}
		work.pages.RangePart(part, each)
	}
	switch {
	case g.batch == nil:
	case err != nil || g.batch.SizeBytes() == 0:
		g.release(g.batch)
	default:
		g.handOn()
	}
	g.gathered.Add(g.seen)
	return err
}

func (g *gatherer) page(gpa memory.GPA, encode func([]byte)) error {
	if g.batch == nil {
		if err := g.take(); err != nil {
			return err
		}
	}
	g.at = gpa
	if err := g.mem.ViewPage(gpa, encode); err != nil {
		return fmt.Errorf("cannot read guest page %#x: %w", uint64(gpa), err)
	}
	if g.seen++; g.batch.Full() {
		g.handOn()
	}
	return nil
}

// take gets an empty batch.
func (g *gatherer) take() error {
	select {
	case g.batch = <-g.free:
		g.waited = false
		return nil
	default:
	}
	g.waited = true
	select {
	case g.batch = <-g.free:
		return nil
	case <-g.ctx.Done():
		return context.Cause(g.ctx)
	}
}

func (g *gatherer) handOn() {
	g.batch.Seal()
	g.comp.compress(g.batch, g.waited)
	g.gathered.Add(g.seen)
	g.seen = 0
	g.full <- g.batch
	g.batch = nil
}
