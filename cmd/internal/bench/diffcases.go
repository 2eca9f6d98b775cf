package bench

import (
	"bytes"
	"fmt"
	"math/bits"
	"math/rand/v2"

	"github.com/fineline-vmm/fineline/coherence/diff"
)

// diffBench is pages with equal twins.
type diffBench struct {
	diffSize
	page, twin []byte   // all of them
	pages      [][]byte // one each
	twins      [][]byte
	key        *diff.Key
	sums       [][diff.PageLines]uint64
	random     *rand.Rand
}

func newDiffBench(size diffSize) *diffBench {
	n := size.pages * diff.PageBytes
	b := &diffBench{
		diffSize: size, page: make([]byte, n), twin: make([]byte, n), key: diff.NewKey(),
		sums: make([][diff.PageLines]uint64, size.pages), random: rand.New(rand.NewPCG(1, 2)),
	}
	for i := range b.page {
		b.page[i] = byte(i * 7)
	}
	copy(b.twin, b.page)
	for i := range size.pages {
		b.pages = append(b.pages, b.page[i*diff.PageBytes:][:diff.PageBytes])
		b.twins = append(b.twins, b.twin[i*diff.PageBytes:][:diff.PageBytes])
		b.key.Hash(b.pages[i], &b.sums[i])
	}
	return b
}

// equalAll is the peer: one comparison of everything, at the rate of the machine.
func (b *diffBench) equalAll() {
	if !bytes.Equal(b.page, b.twin) {
		panic("bench: twins differ")
	}
}

// clean is pages in which nothing has changed, from the first to the last.
func (b *diffBench) clean() []diffCase {
	pair := diffCase{peerName: "bytes.Equal", bytes: 2 * len(b.page), passes: b.passes, peer: b.equalAll}
	mask, update, nonZero, hash := pair, pair, pair, pair
	mask.name, mask.ours = "mask, "+b.name, func() {
		for i, page := range b.pages {
			diff.Mask(page, b.twins[i])
		}
	}
	update.name, update.ours = "update, "+b.name, func() {
		for i, page := range b.pages {
			diff.Update(page, b.twins[i])
		}
	}
	// Twins too, so that as many bytes are read as by the peer.
	nonZero.name, nonZero.ours = "zero check, "+b.name, func() {
		for _, page := range b.pages {
			diff.NonZero(page)
		}
		for _, twin := range b.twins {
			diff.NonZero(twin)
		}
	}
	hash.name, hash.ours = fmt.Sprintf("hash by %s, %s", diff.Level(), b.name), func() { b.hashPass(diff.Available()[0]) }
	return []diffCase{mask, update, nonZero, hash}
}

// hashPass hashes pages and twins, as many bytes as the peer reads.
func (b *diffBench) hashPass(k diff.Kernels) {
	for i := range b.pages {
		k.UpdateHash(b.key, b.pages[i], &b.sums[i])
		k.UpdateHash(b.key, b.twins[i], &b.sums[i])
	}
}

// hashes is the other sets of kernels.
func (b *diffBench) hashes() (all []diffCase) {
	for _, k := range diff.Available()[1:] {
		all = append(all, diffCase{
			name: fmt.Sprintf("hash by %s, %s", k, b.name), peerName: "bytes.Equal", bytes: 2 * len(b.page),
			passes: max(b.passes/10, 1), ours: func() { b.hashPass(k) }, peer: b.equalAll,
		})
	}
	return all
}

// scattered is pages in random order, as those of a guest are written. The peer compares
// them in the same order.
func (b *diffBench) scattered() []diffCase {
	order := b.random.Perm(b.diffSize.pages)
	pages, twins, masks := make([][]byte, len(order)), make([][]byte, len(order)), make([]uint64, len(order))
	sums := make([]*[diff.PageLines]uint64, len(order))
	for to, from := range order {
		pages[to], twins[to], sums[to] = b.pages[from], b.twins[from], &b.sums[from]
	}
	equal := func() {
		for i, page := range pages {
			if !bytes.Equal(page, twins[i]) {
				panic("bench: twins differ")
			}
		}
	}
	pair := diffCase{peerName: "bytes.Equal, the same order", bytes: 2 * len(b.page), passes: b.passes, peer: equal}
	single, batch, hash := pair, pair, pair
	single.name, single.ours = "update, scattered, "+b.name, func() {
		for i, page := range pages {
			diff.Update(page, twins[i])
		}
	}
	batch.name, batch.ours = "update in batches, scattered, "+b.name, func() { diff.UpdateBatch(pages, twins, masks) }
	hash.name, hash.bytes = "hash in batches, scattered, "+b.name, len(b.page)
	hash.ours = func() { b.key.UpdateHashBatch(pages, sums, masks) }
	hash.peerName, hash.peer = "hash one by one, the same order", func() {
		for i, page := range pages {
			b.key.UpdateHash(page, sums[i])
		}
	}
	return []diffCase{single, batch, hash}
}

// changed is pages of which some lines are changed before each pass. The peer does what one
// does without masks: it copies each page to its twin.
func (b *diffBench) changed(name string, lines func() uint64) diffCase {
	return diffCase{
		name:     fmt.Sprintf("update, %s changed, %s", name, b.name),
		peerName: "copy of the page to the twin", bytes: 2 * len(b.page), passes: b.passes,
		before: func() {
			for _, page := range b.pages {
				for mask := lines(); mask != 0; mask &= mask - 1 {
					page[bits.TrailingZeros64(mask)*diff.LineBytes]++
				}
			}
		},
		ours: func() {
			for i, page := range b.pages {
				diff.Update(page, b.twins[i])
			}
		},
		peer: func() {
			for i, page := range b.pages {
				copy(b.twins[i], page)
			}
		},
	}
}

// copies is gather and scatter of random halves of pages, beside a copy of as many bytes.
func (b *diffBench) copies() []diffCase {
	const lines = diff.PageLines / 2
	masks, half := make([]uint64, 256), make([]byte, lines*diff.LineBytes)
	for i := range masks {
		for _, line := range b.random.Perm(diff.PageLines)[:lines] {
			masks[i] |= 1 << line
		}
	}
	pair := diffCase{
		peerName: "copy", bytes: len(masks) * len(half), passes: max(b.passes/len(masks), 1),
		peer: func() {
			for i := range masks {
				copy(half, b.pages[i%len(b.pages)])
			}
		},
	}
	gather, scatter := pair, pair
	gather.name, gather.ours = "gather of random halves, "+b.name, func() {
		for i, mask := range masks {
			diff.Gather(half, b.pages[i%len(b.pages)], mask)
		}
	}
	scatter.name, scatter.ours = "scatter of random halves, "+b.name, func() {
		for i, mask := range masks {
			if _, err := diff.Scatter(b.pages[i%len(b.pages)], mask, half); err != nil {
				panic(err)
			}
		}
	}
	return []diffCase{gather, scatter}
}
