package diff

import "fmt"

// UpdateBatch stores in masks[i] what Update(pages[i], twins[i]) returns. It fetches the next
// pair while it compares one, which is faster if the pages do not follow each other in memory.
// Three lengths that differ are a panic.
func UpdateBatch(pages, twins [][]byte, masks []uint64) { best.UpdateBatch(pages, twins, masks) }

// UpdateHashBatch is UpdateHash for many pages, as UpdateBatch is Update.
func (k *Key) UpdateHashBatch(pages [][]byte, sums []*[PageLines]uint64, masks []uint64) {
	best.UpdateHashBatch(k, pages, sums, masks)
}

// UpdateBatch is the package's UpdateBatch.
func (k Kernels) UpdateBatch(pages, twins [][]byte, masks []uint64) {
	checkBatch(len(pages), len(twins), len(masks))
	for i, page := range pages {
		if i+1 == len(pages) || adjacent(first(page), first(pages[i+1])) {
			masks[i] = k.Update(page, twins[i])
			continue
		}
		masks[i] = k.updateAhead(first(page), first(twins[i]), first(pages[i+1]), first(twins[i+1]))
	}
}

func (k Kernels) updateAhead(page, twin, nextPage, nextTwin *byte) uint64 {
	switch k {
	case avx512:
		return updateAheadAVX512(page, twin, nextPage, nextTwin)
	case avx2:
		return updateAheadAVX2(page, twin, nextPage, nextTwin)
	default:
		return updateGo(page, twin)
	}
}

// UpdateHashBatch is Key.UpdateHashBatch.
func (k Kernels) UpdateHashBatch(key *Key, pages [][]byte, sums []*[PageLines]uint64, masks []uint64) {
	checkBatch(len(pages), len(sums), len(masks))
	for i, page := range pages {
		if i+1 == len(pages) || adjacent(first(page), first(pages[i+1])) {
			masks[i] = k.UpdateHash(key, page, sums[i])
			continue
		}
		masks[i] = k.updateHashAhead(key, first(page), sums[i], first(pages[i+1]))
	}
}

func (k Kernels) updateHashAhead(key *Key, page *byte, sums *[PageLines]uint64, next *byte) uint64 {
	switch k {
	case avx512:
		return updateHashAheadAVX512(page, &key.words, sums, next)
	case avx2:
		return updateHashAheadAVX2(page, &key.words, sums, next)
	default:
		return updateHashGo(page, key, sums)
	}
}

func checkBatch(pages, baselines, masks int) {
	if pages != baselines || pages != masks {
		panic(fmt.Sprintf("diff: a batch of %d pages, %d baselines and %d masks", pages, baselines, masks))
	}
}
