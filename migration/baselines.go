package migration

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fineline-vmm/fineline/coherence/baseline"
	"github.com/fineline-vmm/fineline/coherence/diff"
	"github.com/fineline-vmm/fineline/memory"
)

// Baseline is what a page is compared with to find the lines that the destination lacks.
type Baseline string

// The baselines.
const (
	// BaselineAuto keeps a hash of each line that is sent, and a twin of each page that is written again and again.
	BaselineAuto Baseline = "auto"
	BaselineTwin Baseline = "twin" // a copy of each page
	BaselineHash Baseline = "hash" // a keyed hash of each line: an eighth of the memory
	BaselineNone Baseline = "none" // a page that is written again goes whole
)

func (b Baseline) validate() error {
	switch b {
	case BaselineAuto, BaselineTwin, BaselineHash, BaselineNone:
		return nil
	}
	return fmt.Errorf("unknown baseline %q; use auto, twin, hash or none", b)
}

// knowledge is what the source knows of a page at the destination.
type knowledge uint8

const (
	isZero    knowledge = iota // no content was sent: it is zero there
	isOther                    // content was sent, and no baseline is kept
	isSums                     // the hash of each line is that of the bytes sent
	isTwin                     // the twin is the bytes sent
	isResting                  // as isOther, and the room of a twin is kept
)

// twinAfter is how often a page must have been found changed by its hashes before it gets a twin: the memory of
// a twin costs ten times as much as hashing the page (2.6 us a page fault beside 0.25), and is of
// use only for a page that is written again and again.
const twinAfter = 2

// twinWorth is how long a page must have taken in a round for twins to be worth their time: then it waits for the link, which
// the difference inside a line relieves, and not for processors.
const twinWorth = 12 * time.Microsecond

// heavyRounds is how often in a row most lines of a page must have changed before it is no longer compared, and
// heavyRest how many rounds it goes whole then before it gets a twin again: comparing a page that
// changes entirely costs as much as sending it.
const (
	heavyRounds = 2
	heavyRest   = 4
)

// baselines keeps, within a budget, the bytes that were sent of each page or their hashes (design law 2).
// Workers use it at the same time, but never for the same page.
type baselines struct {
	kind        Baseline
	key         *diff.Key
	budgetBytes int64
	thrifty     bool // with BaselineAuto no page that has hashes gets a twin; changes only between rounds
	usedBytes   atomic.Int64

	regions []memory.Region
	first   []int // of each region, in chunks
	chunks  []atomic.Pointer[baselineChunk]
	mu      sync.Mutex // to make a chunk, or its parts
}

// baselineChunk is what is kept for 2 MiB of guest memory, each part from its first use on.
type baselineChunk struct {
	known [baseline.ChunkPages]knowledge
	// count: in isSums, rounds with changes; in isTwin, rounds in a row with most lines changed; in isResting, rounds
	// to rest.
	count [baseline.ChunkPages]uint8
	sums  atomic.Pointer[[]([diff.PageLines]uint64)]
	twins atomic.Pointer[[]byte]
}

func newBaselines(mem *memory.Guest, kind Baseline, budgetBytes uint64) *baselines {
	b := &baselines{kind: kind, key: diff.NewKey(), budgetBytes: int64(min(budgetBytes, 1<<62)), regions: mem.Regions()}
	n := 0
	for _, r := range b.regions {
		b.first = append(b.first, n)
		n += int((r.SizeBytes + baseline.ChunkBytes - 1) / baseline.ChunkBytes)
	}
	b.chunks = make([]atomic.Pointer[baselineChunk], n)
	return b
}

// at returns the place of a page of RAM.
func (b *baselines) at(gpa memory.GPA) (c *baselineChunk, i int) {
	region := len(b.regions) - 1
	for b.regions[region].Base > gpa {
		region--
	}
	off := uint64(gpa - b.regions[region].Base)
	slot := &b.chunks[b.first[region]+int(off/baseline.ChunkBytes)]
	if c = slot.Load(); c == nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		if c = slot.Load(); c == nil {
			c = &baselineChunk{}
			slot.Store(c)
		}
	}
	return c, int(off % baseline.ChunkBytes / memory.PageSize)
}

// twin returns room for the twin of a page, or nil when the budget is used up.
func (b *baselines) twin(c *baselineChunk, i int) []byte {
	twins := c.twins.Load()
	if c.known[i] < isTwin {
		if b.usedBytes.Add(memory.PageSize) > b.budgetBytes {
			b.usedBytes.Add(-memory.PageSize)
			return nil
		}
		if twins == nil {
			twins = makeOnce(&b.mu, &c.twins, baseline.NewTwins)
		}
		if *twins == nil {
			b.usedBytes.Add(-memory.PageSize)
			return nil
		}
	}
	return (*twins)[i*memory.PageSize:][:memory.PageSize]
}

// lineSums returns room for the hashes of a page, or nil when the budget is used up.
func (b *baselines) lineSums(c *baselineChunk, i int) *[diff.PageLines]uint64 {
	sums := c.sums.Load()
	if sums == nil {
		sums = makeOnce(&b.mu, &c.sums, func() [][diff.PageLines]uint64 {
			if b.usedBytes.Add(baseline.SumsBytes) > b.budgetBytes {
				b.usedBytes.Add(-baseline.SumsBytes)
				return nil
			}
			return baseline.NewSums()
		})
	}
	if *sums == nil {
		return nil
	}
	return &(*sums)[i]
}

func makeOnce[T any](mu *sync.Mutex, slot *atomic.Pointer[T], make func() T) *T {
	mu.Lock()
	defer mu.Unlock()
	if slot.Load() == nil {
		made := make()
		slot.Store(&made)
	}
	return slot.Load()
}

// judge says whether the next round may make twins, by the time that a page of the last one took. A page that has one keeps it.
func (b *baselines) judge(page time.Duration) { b.thrifty = page < twinWorth }

// remember makes the bytes that were sent the baseline of a page, as the kind and the budget allow.
// hot: the page has changed often. A page that has the room of a twin uses it, whatever it does now: the room is counted
// until free. sent does not change.
func (b *baselines) remember(c *baselineChunk, i int, sent []byte, hot bool) {
	c.count[i] = 0
	if b.kind == BaselineTwin || b.kind == BaselineAuto && (hot || c.known[i] >= isTwin) {
		if twin := b.twin(c, i); twin != nil {
			copy(twin, sent)
			c.known[i] = isTwin
			return
		}
	}
	if b.kind != BaselineNone {
		if sums := b.lineSums(c, i); sums != nil {
			b.key.Hash(sent, sums)
			c.known[i] = isSums
			return
		}
	}
	c.known[i] = isOther
}

// sizeBytes is the memory that the baselines take.
func (b *baselines) sizeBytes() uint64 { return uint64(b.usedBytes.Load()) }

// free gives all memory back. Nobody uses the baselines any more.
func (b *baselines) free() {
	for i := range b.chunks {
		c := b.chunks[i].Swap(nil)
		if c == nil {
			continue
		}
		if twins := c.twins.Load(); twins != nil {
			baseline.FreeTwins(*twins)
		}
		if sums := c.sums.Load(); sums != nil {
			baseline.FreeSums(*sums)
		}
	}
}
