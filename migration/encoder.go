package migration

import (
	"fmt"
	"math/bits"

	"github.com/fineline-vmm/fineline/coherence/diff"
	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// Granularity is the unit of what is sent again.
type Granularity string

// The granularities.
const (
	GranularityLine Granularity = "line" // the lines that the destination lacks
	GranularityPage Granularity = "page" // whole pages, as other tools do
)

func (g Granularity) validate() error {
	if g != GranularityLine && g != GranularityPage {
		return fmt.Errorf("unknown granularity %q; use line or page", g)
	}
	return nil
}

// wholePageLines: a page with more lines to send goes whole. It is a matter of time: up to 63 lines would
// be fewer bytes, but above this many to gather and mark them takes longer than to copy the page.
const wholePageLines = 48

// encoder decides what of a page is sent. Each worker has one; they share the baselines.
type encoder struct {
	base  *baselines
	lines bool // else pages go whole
	final bool // the guest is paused: what little may follow can go whole, and no memory is taken for baselines

	fresh, old [memory.PageSize]byte // lines of the page at work
	blank      [memory.PageSize]byte // zeros, between two pages
}

// tally counts what one round put on the wire.
type tally struct {
	pages     uint64 // with content
	lines     uint64
	clean     uint64 // marked dirty, and yet as the destination has them
	zeroPages uint64 // found zero
	zeroSent  uint64 // of these, the ones that the destination must be told of
}

func (t *tally) add(o tally) {
	t.pages += o.pages
	t.lines += o.lines
	t.clean += o.clean
	t.zeroPages += o.zeroPages
	t.zeroSent += o.zeroSent
}

// encode appends to b what the destination lacks of the page, and counts it. page changes while it is
// read: what is sent, and what becomes the baseline, is a copy (design law 2). Precondition: b is not full.
func (e *encoder) encode(gpa memory.GPA, page []byte, b *wire.Batch, sum *tally) {
	number := uint64(gpa) / memory.PageSize
	c, i := e.base.at(gpa)
	switch c.known[i] {
	case isZero:
		e.first(number, c, i, page, b, sum)
	case isTwin:
		e.againstTwin(number, c, i, page, b, sum)
	case isSums:
		e.againstSums(number, c, i, page, b, sum)
	default:
		e.whole(number, c, i, page, b, sum)
	}
}

// first sends a page of which the destination has zeros: lines of zeros cost nothing.
func (e *encoder) first(number uint64, c *baselineChunk, i int, page []byte, b *wire.Batch, sum *tally) {
	mask := diff.NonZero(page)
	n := bits.OnesCount64(mask)
	switch {
	case n == 0:
		// A line that was zero when it was judged and is written later is dirty again.
		sum.zeroPages++
	case !e.lines || n > wholePageLines:
		taken := b.AppendPage(number, page)
		e.remember(c, i, taken, false)
		sum.pages++
		sum.lines += diff.PageLines
	default:
		size := diff.Gather(e.fresh[:], page, mask)
		// What the destination has of the page then: zeros, and these lines.
		_, _ = diff.Scatter(e.blank[:], mask, e.fresh[:size])
		e.remember(c, i, e.blank[:], false)
		_, _ = diff.Scatter(e.blank[:], mask, zeroPage[:size])
		b.AppendLines(number, mask, e.fresh[:size])
		sum.pages++
		sum.lines += uint64(n)
	}
}

var zeroPage [memory.PageSize]byte

func (e *encoder) remember(c *baselineChunk, i int, taken []byte, again bool) {
	switch {
	case e.lines && !e.final:
		e.base.remember(c, i, taken, again)
	case c.known[i] != isResting:
		c.known[i] = isOther
	}
}

// againstTwin sends the lines that differ from the twin. Which lines to look at is judged on the live page; each is
// then copied once, and the copy is sent and becomes the twin's. A line that was equal
// when it was judged and is written later is dirty again.
func (e *encoder) againstTwin(number uint64, c *baselineChunk, i int, page []byte, b *wire.Batch, sum *tally) {
	twin := e.base.twin(c, i)
	mask := diff.Mask(page, twin)
	n := bits.OnesCount64(mask)
	switch {
	case n == 0:
		sum.clean++
		return
	case n > wholePageLines:
		taken := b.AppendPage(number, page)
		if c.count[i]++; c.count[i] >= heavyRounds {
			c.count[i], c.known[i] = heavyRest, isResting
		} else {
			copy(twin, taken)
		}
		e.countWhole(number, taken, b, sum)
		return
	}
	c.count[i] = 0
	size := diff.Gather(e.fresh[:], page, mask)
	diff.Gather(e.old[:], twin, mask)
	_, _ = diff.Scatter(twin, mask, e.fresh[:size]) // as long as the mask says
	b.AppendDelta(number, mask, e.fresh[:size], e.old[:size])
	sum.pages++
	sum.lines += uint64(n)
}

// againstSums sends the lines whose hash is another than that of what was sent. A page that changes again and
// again gets a twin, if the budget allows.
func (e *encoder) againstSums(number uint64, c *baselineChunk, i int, page []byte, b *wire.Batch, sum *tally) {
	taken := e.old[:]
	copy(taken, page)
	mask := e.base.key.UpdateHash(taken, e.base.lineSums(c, i))
	n := bits.OnesCount64(mask)
	if n == 0 {
		sum.clean++
		return
	}
	if c.count[i]++; c.count[i] >= twinAfter && e.base.kind == BaselineAuto && !e.base.thrifty && !e.final {
		e.base.remember(c, i, taken, true)
	}
	if n > wholePageLines {
		e.countWhole(number, b.AppendPage(number, taken), b, sum)
		return
	}
	size := diff.Gather(e.fresh[:], taken, mask)
	b.AppendLines(number, mask, e.fresh[:size])
	sum.pages++
	sum.lines += uint64(n)
}

// whole sends a page of which nothing is known but that it was sent before.
func (e *encoder) whole(number uint64, c *baselineChunk, i int, page []byte, b *wire.Batch, sum *tally) {
	taken := b.AppendPage(number, page)
	if c.count[i] > 0 {
		c.count[i]--
	} else {
		e.remember(c, i, taken, true)
	}
	e.countWhole(number, taken, b, sum)
}

// countWhole counts the page that was just appended, of which the destination may have content. One of zeros
// becomes a word.
func (e *encoder) countWhole(number uint64, taken []byte, b *wire.Batch, sum *tally) {
	if diff.NonZero(taken) != 0 {
		sum.pages++
		sum.lines += diff.PageLines
		return
	}
	b.Retract()
	b.AppendZero(number)
	sum.zeroPages++
	sum.zeroSent++
}
