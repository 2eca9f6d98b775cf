package predict

const (
	// beyond is how many pages more than asked for an expert may name. What was foretold and not
	// fetched is what can miss, and so what can speak for an expert that is always right.
	beyond = 8
	// shadow is the least that an expert is asked for, so that it can show what it knows.
	shadow = 16
	// fewGuesses is what the last expert may always fetch, however often it was wrong.
	fewGuesses = 4

	ledgerBits = 12
	certain    = 1 << 16 // the score of one who has foretold everything
	memory     = 32      // the number of touches that a score looks back, about
)

// auto asks experts in the order of the evidence that they want before they name anything; the
// last one guesses. Of each page that misses or is hit it is known who had foretold it, and that
// share is an expert's score.
//
// A score says how much of what the guest waits for an expert knows, and not how much of what it
// names is of use: with hits unseen nobody can know that, and an expert that names everything in sight scores as
// high as one that knows the stride. Hence the fixed order. (With the order of the scores, strides of 2
// and 3 were left to the guesser, which fetched two useless pages for a useful one.)
type auto struct {
	experts []*expert

	// ledger says of pages who has foretold them. A later page takes an earlier one's place.
	ledger [1 << ledgerBits]foretold
}

type foretold struct {
	page uint64
	by   uint8 // a bit for each expert
}

type expert struct {
	strategy
	bit   uint8
	score int // the share of touches that it had foretold, of certain, the latest counting most
	out   picker
	named [mostPicked]uint64
}

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

// ask lets the experts name pages, notes all of them and picks those that there is room for.
//
// Behind the first expert that had foretold page nobody is followed, unless somebody there does
// far better: it knows what the guest is at, even if it wants no more just now, and the others
// would fill the room with guesses.
func (a *auto) ask(call func(strategy, uint64, *picker), page uint64, out *picker) {
	by := a.learn(page)
	for i, e := range a.experts {
		e.out.begin(page, e.named[:0], max(shadow, out.room+beyond))
		call(e.strategy, page, &e.out)
		if i == len(a.experts)-1 {
			out.room = min(out.room, max(fewGuesses, out.room*4*e.score/certain))
		}
		for _, named := range e.out.take() {
			a.entry(named).by |= e.bit
			out.add(named)
		}
		if by&e.bit != 0 && 2*e.score >= bestScore(a.experts[i+1:]) {
			out.room = 0
		}
	}
}

// learn moves the scores and returns who had foretold page.
func (a *auto) learn(page uint64) uint8 {
	by := a.entry(page).by
	for _, e := range a.experts {
		right := 0
		if by&e.bit != 0 {
			right = certain
		}
		e.score += (right - e.score) / memory
	}
	return by
}

// entry returns the page's place in the ledger.
func (a *auto) entry(page uint64) *foretold {
	l := &a.ledger[hash(page, ledgerBits)]
	if l.page != page {
		l.page, l.by = page, 0
	}
	return l
}

func bestScore(experts []*expert) int {
	best := 0
	for _, e := range experts {
		best = max(best, e.score)
	}
	return best
}
