package migration

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// pumpBatches is how many batches circulate: one is filled, one is written, one waits between them.
const pumpBatches = 3

// pump moves pages from guest memory to the wire: the caller's goroutine gathers into batches, another
// one writes them, so that copying, zero check and checksum run beside the system call. It allocates
// its batches once.
type pump struct {
	mem  *memory.Guest
	enc  encoder
	free chan *wire.Batch
	// write puts a sealed batch on the wire. It runs in the pump's second goroutine.
	write func(context.Context, *wire.Batch) error
	// gathered counts the pages that this run has put into finished batches, for Progress.
	gathered atomic.Uint64
}

func newPump(mem *memory.Guest, enc encoder, batchBytes int, write func(context.Context, *wire.Batch) error) *pump {
	p := &pump{mem: mem, enc: enc, free: make(chan *wire.Batch, pumpBatches), write: write}
	for range pumpBatches {
		p.free <- wire.NewBatch(batchBytes)
	}
	return p
}

// run sends the pages and returns what they came to. All batches are back when it returns.
func (p *pump) run(ctx context.Context, pages *memory.PageSet) (tally, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p.gathered.Store(0)
	full := make(chan *wire.Batch, pumpBatches) // never blocks: it holds all there are
	written := make(chan struct{})
	go func() {
		defer close(written)
		for b := range full {
			// After a failure the rest is only returned: the gatherer stops at its next batch.
			if ctx.Err() == nil {
				if err := p.write(ctx, b); err != nil {
					cancel(err)
				}
			}
			p.release(b)
		}
	}()
	sum, err := p.gather(ctx, pages, full)
	close(full)
	<-written
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return sum, err
}

func (p *pump) release(b *wire.Batch) {
	b.Reset()
	p.free <- b
}

// gather fills batches with the pages, in rising order, and hands them on.
func (p *pump) gather(ctx context.Context, pages *memory.PageSet, full chan<- *wire.Batch) (sum tally, err error) {
	var batch *wire.Batch
	var at memory.GPA
	seen := uint64(0)
	handOn := func() {
		batch.Seal()
		p.gathered.Store(seen)
		full <- batch
		batch = nil
	}
	// One closure for all pages: nothing is allocated per page.
	encode := func(page []byte) { p.enc.encode(at, page, batch, &sum) }
	pages.Range(func(gpa memory.GPA) bool {
		if batch == nil {
			select {
			case batch = <-p.free:
			case <-ctx.Done():
				err = context.Cause(ctx)
				return false
			}
		}
		at = gpa
		if viewErr := p.mem.ViewPage(gpa, encode); viewErr != nil {
			err = fmt.Errorf("cannot read guest page %#x: %w", uint64(gpa), viewErr)
			return false
		}
		seen++
		if batch.Full() {
			handOn()
		}
		return true
	})
	switch {
	case batch == nil:
	case err != nil || batch.SizeBytes() == 0:
		p.release(batch)
	default:
		handOn()
	}
	return sum, err
}
