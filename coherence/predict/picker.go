package predict

// picker collects the pages of one call and lets pass what the interface promises.
type picker struct {
	options *Options
	pages   []uint64
	room    int // pages that may still be picked

	// seen is the set of this round's pages, by open addressing: more than three times as many
	// places as pages, so that a search is short. A place of an older round is empty.
	seen  [seenPlaces]mark
	round uint64
}

type mark struct{ page, round uint64 }

const (
	seenBits   = 8
	seenPlaces = 1 << seenBits
	mostPicked = MaxPages + beyond // of a round
)

// begin starts a round that adds at most n pages to dst, none of them page.
func (k *picker) begin(page uint64, dst []uint64, n int) {
	k.pages, k.room = dst, max(0, min(n, mostPicked))
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
	if k.room > 0 && k.options.wanted(page) {
		k.add(page)
	}
	return k.room > 0
}

// add adds a page that is known to be wanted, once.
func (k *picker) add(page uint64) {
	if k.room > 0 && k.first(page) {
		k.pages = append(k.pages, page)
		k.room--
	}
}

// first says whether the page was not seen in this round, and notes it.
func (k *picker) first(page uint64) bool {
	for i := hash(page, seenBits); ; i = (i + 1) % seenPlaces {
		switch m := &k.seen[i]; {
		case m.round != k.round:
			*m = mark{page, k.round}
			return true
		case m.page == page:
			return false
		}
	}
}

// hash mixes a number into so many bits: Knuth, "The Art of Computer Programming" vol. 3, section
// 6.4, with the golden ratio. Who makes collisions only spoils the guesses about itself.
func hash(number uint64, bits int) uint64 { return number * 0x9e3779b97f4a7c15 >> (64 - bits) }
