package predict

// picker collects the pages of one call and lets pass what the interface promises.
type picker struct {
	options *Options
	pages   []uint64
	room    int // pages that may still be picked

	// seen is the set of this round's pages, by open addressing: four times as many places as
	// pages at most, so that a search is short. A place of an older round is empty.
	seen  [4 * 2 * MaxPages]mark
	round uint64
}

type mark struct{ page, round uint64 }

// begin starts a round that adds at most n pages to dst, none of them page.
func (k *picker) begin(page uint64, dst []uint64, n int) {
	k.pages, k.room = dst, max(0, min(n, MaxPages+beyond))
	k.round++
	k.first(page)
}

// take ends the round and returns its pages behind those of begin's dst.
func (k *picker) take() []uint64 {
	pages := k.pages
	k.pages, k.room = nil, 0
	return pages
}

// pick adds the page if it is of use. It says whether there is room for one more.
func (k *picker) pick(page uint64) bool {
	if k.room > 0 && k.options.wanted(page) && k.first(page) {
		k.pages = append(k.pages, page)
		k.room--
	}
	return k.room > 0
}

// first says whether the page was not seen in this round, and notes it.
func (k *picker) first(page uint64) bool {
	for i := page * 0x9e3779b97f4a7c15 >> 55; ; i = (i + 1) % uint64(len(k.seen)) {
		switch p := &k.seen[i]; {
		case p.round != k.round:
			*p = mark{page, k.round}
			return true
		case p.page == page:
			return false
		}
	}
}
