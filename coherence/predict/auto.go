package predict

const (
	// beyond is how many pages the best expert names over what is asked for. What was foretold
	// and not fetched is what can miss, and so what can speak for an expert that is always right.
	beyond = 8
	// shadow is the least that every expert is asked for, so that it can show what it knows.
	shadow = 16

	ledgerPlaces = 4096
	certain      = 1 << 16 // the score of one who has foretold everything
	memory       = 32      // the number of touches that a score looks back, about
)

// auto asks experts and follows those who were right: of each page that misses or is hit it is known
// who had foretold it. The expert with the best score comes first, the others get the room that
// is left.
type auto struct {
	experts []*expert // the best score first

	// ledger says of pages who has foretold them. A later page takes an earlier one's place.
	ledger [ledgerPlaces]struct {
		page uint64
		by   uint8 // a bit for each expert
	}
}

type expert struct {
	strategy
	bit   uint8
	score int // the share of touches that it had foretold, of certain, the latest counting most
	out   picker
	named [MaxPages + beyond]uint64
}

// newAuto has the experts in the order of the evidence that they want before they name anything.
func newAuto(o *Options) strategy {
	return newTeam(o, newPagetable, newStride, newMarkov, newAround)
}

func newTeam(o *Options, experts ...func(*Options) strategy) *auto {
	a := &auto{}
	for i, build := range experts {
		a.experts = append(a.experts, &expert{strategy: build(o), bit: 1 << i, out: picker{options: o}})
	}
	return a
}

func (a *auto) miss(page uint64, out *picker) { a.ask(strategy.miss, page, out) }
func (a *auto) hit(page uint64, out *picker)  { a.ask(strategy.hit, page, out) }

func (a *auto) arrived(page uint64, content []byte) {
	for _, e := range a.experts {
		e.arrived(page, content)
	}
}

func place(page uint64) uint64 { return page * 0x9e3779b97f4a7c15 >> 52 }

// ask lets the experts name pages, notes all of them and picks those that there is room for. Behind the
// first expert that had foretold page nobody is followed: it knows what the guest is at, even if it wants no more
// just now, and the others would fill the room with guesses.
func (a *auto) ask(call func(strategy, uint64, *picker), page uint64, out *picker) {
	by := a.learn(page)
	for i, e := range a.experts {
		e.out.begin(page, e.named[:0], max(shadow, out.room+beyond))
		call(e.strategy, page, &e.out)
		for _, named := range e.out.take() {
			a.note(named, e.bit)
			out.pick(named)
		}
		if by&e.bit != 0 && a.rightest(i+1) <= 2*e.score {
			out.room = 0
		}
	}
}

// note writes into the ledger that page is foretold.
func (a *auto) note(page uint64, bit uint8) {
	l := &a.ledger[place(page)]
	if l.page != page {
		l.page, l.by = page, 0
	}
	l.by |= bit
}

// learn moves the scores and returns who had foretold page.
func (a *auto) learn(page uint64) uint8 {
	l := &a.ledger[place(page)]
	if l.page != page {
		l.page, l.by = page, 0
	}
	for _, e := range a.experts {
		right := 0
		if l.by&e.bit != 0 {
			right = certain
		}
		e.score += (right - e.score) / memory
	}
	return l.by
}

// rightest returns the best score of the experts from i on.
func (a *auto) rightest(i int) int {
	best := 0
	for _, e := range a.experts[i:] {
		best = max(best, e.score)
	}
	return best
}
