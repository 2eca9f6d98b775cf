package migration

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// Checkpointer is a Target whose guest can be saved while it runs: what a source that is kept takes.
type Checkpointer interface {
	// DirtySource reports the stores that guest code makes.
	DirtySource() memory.DirtySource
	// Checkpoint holds the guest still, saves its state, calls gather, and lets the guest go on as it was before. The
	// state is that instant's, and says whether the guest was running. Stores to guest memory that saving makes come before
	// gather. The error wraps memory.ErrMissing, and gather was not called, when a vCPU is within an instruction that waits for
	// missing memory.
	Checkpoint(gather func() error) (state []byte, err error)
}

const (
	// checkpointBatchBytes is small, so that workers share what there is, and the first batch leaves soon.
	checkpointBatchBytes = 256 << 10
	// maxCheckpointBytes bounds the memory in which a checkpoint is gathered. A larger one is sent while it is gathered,
	// with the guest standing still.
	maxCheckpointBytes = 64 << 20
)

// saver takes checkpoints of a running guest, each as what the source lacks of it. One goroutine uses it.
type saver struct {
	guest   Checkpointer
	mem     *memory.Guest
	tracker *memory.Tracker
	clock   clock
	base    *baselines // of what the source has
	workers []*checkpointWorker

	dirty *memory.PageSet // what the source lacks since the last checkpoint that it has acknowledged
	known *memory.PageSet // pages that it has had back, so that base knows them

	free chan *wire.Batch
	made int // batches
}

// checkpointWorker encodes a part of the pages.
type checkpointWorker struct {
	enc encoder
	sum tally
}

// newSaver begins to track the guest's memory, at a cost to nobody since the guest does not run yet.
func newSaver(guest Checkpointer, mem *memory.Guest, c clock) (*saver, error) {
	s := &saver{
		guest: guest, mem: mem, clock: c, tracker: mem.Track(guest.DirtySource()),
		base:  newBaselines(mem, BaselineAuto, mem.SizeBytes()/2),
		dirty: mem.NewPageSet(), known: mem.NewPageSet(),
		free: make(chan *wire.Batch, maxCheckpointBytes/checkpointBatchBytes),
	}
	for range min(runtime.GOMAXPROCS(0), maxDefaultStreams) {
		s.workers = append(s.workers, &checkpointWorker{enc: encoder{base: s.base, lines: true}})
	}
	return s, s.tracker.Start()
}

// begin forgets what was stored so far: the memory is the source's.
func (s *saver) begin() error {
	if err := s.tracker.Collect(s.dirty); err != nil {
		return err
	}
	s.dirty.Clear()
	return nil
}

func (s *saver) close() error {
	s.base.free()
	return s.tracker.Stop()
}

// acknowledged: the source has everything that the last checkpoint had.
func (s *saver) acknowledged() {
	s.known.Union(s.dirty)
	s.dirty.Clear()
}

// lost: the source has nothing of the last checkpoint. Its pages are in the next one, whole.
func (s *saver) lost() { s.known.Subtract(s.dirty) }

// taken is a checkpoint but for its pages.
type taken struct {
	state []byte
	sum   tally
	pause time.Duration // of the guest, at most

	collected uint64 // pages
}

// take makes a checkpoint and passes its pages to write, in one goroutine. It starts to write when all is gathered or the room is used up, and
// returns when all is written. Errors are those of Checkpoint and of write; the source then has no use for what was written.
func (s *saver) take(ctx context.Context, write func(*wire.Batch) error) (*taken, error) {
	out := &outlet{full: make(chan *wire.Batch, cap(s.free)), start: make(chan struct{}), free: s.free}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var writing sync.WaitGroup
	writing.Go(func() {
		if err := out.drain(ctx, write); err != nil {
			cancel(err)
		}
	})
	t := &taken{}
	began := s.clock.Now()
	state, err := s.guest.Checkpoint(func() error { return s.gather(ctx, out) })
	t.pause = s.clock.Now() - began
	close(out.full)
	out.begin()
	writing.Wait()
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	t.state, t.collected = state, s.dirty.Len()
	for _, w := range s.workers {
		t.sum.add(w.sum)
	}
	return t, err
}

// gather encodes all that the source lacks. The guest stands still.
func (s *saver) gather(ctx context.Context, out *outlet) error {
	if err := s.tracker.Collect(s.dirty); err != nil {
		return err
	}
	work := &parts{pages: s.dirty}
	errs := make([]error, len(s.workers))
	var running sync.WaitGroup
	for i, w := range s.workers {
		running.Go(func() { errs[i] = s.work(ctx, w, work, out) })
	}
	running.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// work is one worker's share.
func (s *saver) work(ctx context.Context, w *checkpointWorker, work *parts, out *outlet) (err error) {
	var b *wire.Batch
	var at memory.GPA
	w.sum = tally{}
	encode := func(page []byte) { s.encode(w, at, page, b) }
	each := func(gpa memory.GPA) bool {
		if b == nil {
			if b, err = s.batch(ctx, out); err != nil {
				return false
			}
		}
		at = gpa
		seen, viewErr := s.mem.TryViewPage(gpa, encode)
		switch {
		case viewErr != nil:
			err = viewErr
		case !seen:
			err = fmt.Errorf("%w: page %#x was written, and is not here", memory.ErrMissing, uint64(gpa))
		case b.Full():
			out.put(b)
			b = nil
		}
		return err == nil
	}
	for err == nil {
		part, ok := work.take()
		if !ok {
			break
		}
		work.pages.RangePart(part, each)
	}
	if b != nil {
		out.put(b)
	}
	return err
}

// encode appends what the source lacks of a page. The first time that is all of it: nobody has kept what it was
// when it came.
func (s *saver) encode(w *checkpointWorker, gpa memory.GPA, page []byte, b *wire.Batch) {
	if s.known.Has(gpa) {
		w.enc.encode(gpa, page, b, &w.sum)
		return
	}
	c, i := s.base.at(gpa)
	number := uint64(gpa) / memory.PageSize
	sent := b.AppendPage(number, page)
	s.base.remember(c, i, sent, false)
	w.enc.countWhole(number, sent, b, &w.sum)
}

// batch returns an empty one, for which it may have to wait until another is written. For any worker.
func (s *saver) batch(ctx context.Context, out *outlet) (*wire.Batch, error) {
	select {
	case b := <-s.free:
		return b, nil
	default:
	}
	if out.more(&s.made, cap(s.free)) {
		return wire.NewBatch(checkpointBatchBytes), nil
	}
	out.begin()
	select {
	case b := <-s.free:
		return b, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// outlet is the way of one checkpoint's batches to the connection.
type outlet struct {
	mu    sync.Mutex
	full  chan *wire.Batch // never blocks: it holds all there are
	free  chan *wire.Batch // likewise
	start chan struct{}
	once  sync.Once
}

func (o *outlet) begin() { o.once.Do(func() { close(o.start) }) }

// more counts one more batch, if there may be one.
func (o *outlet) more(made *int, limit int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if *made == limit {
		return false
	}
	*made++
	return true
}

func (o *outlet) put(b *wire.Batch) {
	b.Seal()
	o.full <- b
}

// drain writes until full is closed. After an error the rest is only returned.
func (o *outlet) drain(ctx context.Context, write func(*wire.Batch) error) (err error) {
	<-o.start
	for b := range o.full {
		if err == nil && ctx.Err() == nil && b.SizeBytes() > 0 {
			err = write(b)
		}
		b.Reset()
		o.free <- b
	}
	return err
}
