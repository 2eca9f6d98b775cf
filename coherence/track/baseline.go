package track

import (
	"github.com/fineline-vmm/fineline/coherence/baseline"
	"github.com/fineline-vmm/fineline/coherence/diff"
	"github.com/fineline-vmm/fineline/memory"
)

// Baseline is what a page is compared with.
type Baseline uint8

// The baselines, by what they cost.
const (
	Hash Baseline = iota // a keyed 64-bit hash of each line: an eighth of the memory
	Twin                 // a copy: as much as the memory; changed bytes can be counted
	None                 // nothing: every line of a written page counts as changed
)

// baselines holds the baselines of all pages that are compared. Memory that has never been touched
// is zero, and so are a new twin and the hash of a zero line (diff.Key), so pages
// without data get their baseline for nothing: the memory of a new chunk stays untouched.
type baselines struct {
	kind        Baseline // for chunks that need not count
	budgetBytes uint64
	// twinBudgetBytes is the part that twins may take: with Hash half of it, so that who counts bytes
	// leaves others their hashes.
	twinBudgetBytes uint64
	usedBytes       uint64
	twinBytes       uint64
	key             *diff.Key // made with the first chunk, since machines start faster without
	chunks          map[uint64]*baselineChunk
}

// baselineChunk has a twin, or hashes, or neither when the budget was used up.
type baselineChunk struct {
	fresh bool // no page has been looked at: the baseline is that of zeros
	twin  []byte
	sums  [][LinesPerPage]uint64
}

func newBaselines(kind Baseline, budgetBytes uint64) *baselines {
	twins := budgetBytes
	if kind == Hash {
		twins /= 2
	}
	return &baselines{kind: kind, budgetBytes: budgetBytes, twinBudgetBytes: twins, chunks: map[uint64]*baselineChunk{}}
}

// reserve makes room for the baseline of a chunk, as good as the budget allows.
func (b *baselines) reserve(key uint64, count bool) *baselineChunk {
	if b.key == nil {
		b.key = diff.NewKey()
	}
	c := b.chunks[key]
	if c == nil {
		c = &baselineChunk{fresh: true}
		b.chunks[key] = c
		switch {
		case b.kind == None:
		case (count || b.kind == Twin) && b.spendTwin():
			if c.twin = baseline.NewTwins(); c.twin == nil {
				b.usedBytes -= baseline.TwinsBytes
				b.twinBytes -= baseline.TwinsBytes
			}
		case b.spend(baseline.SumsBytes):
			if c.sums = baseline.NewSums(); c.sums == nil {
				b.usedBytes -= baseline.SumsBytes
			}
		}
	}
	return c
}

// promote makes a twin, not filled yet, of a chunk's hashes, which it returns, if the budget allows.
func (b *baselines) promote(c *baselineChunk) (sums [][LinesPerPage]uint64, ok bool) {
	if c.twin != nil || b.kind == None || !b.spendTwin() {
		return nil, false
	}
	twin := baseline.NewTwins()
	if twin == nil {
		b.usedBytes -= baseline.TwinsBytes
		b.twinBytes -= baseline.TwinsBytes
		return nil, false
	}
	sums = c.sums
	b.usedBytes -= c.sizeBytes()
	c.twin, c.sums = twin, nil
	return sums, true
}

func (b *baselines) spendTwin() bool {
	if b.twinBytes+baseline.TwinsBytes > b.twinBudgetBytes || !b.spend(baseline.TwinsBytes) {
		return false
	}
	b.twinBytes += baseline.TwinsBytes
	return true
}

func (b *baselines) spend(sizeBytes uint64) bool {
	if b.usedBytes+sizeBytes > b.budgetBytes {
		return false
	}
	b.usedBytes += sizeBytes
	return true
}

func (b *baselines) free(key uint64) {
	b.usedBytes -= b.chunks[key].sizeBytes()
	b.twinBytes -= uint64(len(b.chunks[key].twin))
	baseline.FreeTwins(b.chunks[key].twin)
	baseline.FreeSums(b.chunks[key].sums)
	delete(b.chunks, key)
}

func (c *baselineChunk) sizeBytes() uint64 {
	return uint64(len(c.twin)) + uint64(len(c.sums))*LinesPerPage*8
}

// update compares the page with its baseline, which becomes the very bytes that were
// compared (design law 2).
func (b *baselines) update(c *baselineChunk, gpa memory.GPA, page []byte) Page {
	i := pageInChunk(gpa)
	switch {
	case c.twin != nil:
		lines, changed := diff.UpdateCount(page, c.twinOf(i))
		return Page{GPA: gpa, Lines: lines, ChangedBytes: uint32(changed), Counted: true}
	case c.sums != nil:
		return Page{GPA: gpa, Lines: b.key.UpdateHash(page, &c.sums[i])}
	default:
		return Page{GPA: gpa, Lines: ^uint64(0), Inexact: true}
	}
}

func (c *baselineChunk) twinOf(i uint64) []byte {
	return c.twin[i*memory.PageSize:][:memory.PageSize]
}
