package predict

import "slices"

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

func newAuto(o *Options) strategy {
	a := &auto{}
	// The order at the start: who names pages from the least evidence comes last.
	for i, build := range []func(*Options) strategy{newPagetable, newStride, newMarkov, newAround} {
		a.experts = append(a.experts, &expert{strategy: build(o), bit: 1 << i, out: picker{options: o}})
	}
	return a
}

func (a *auto) miss(page uint64, out *picker) {
	a.learn(page)
	for _, e := range a.experts {
		a.ask(e, strategy.miss, page, out)
	}
}

func (a *auto) hit(page uint64, out *picker) {
	a.learn(page)
	for _, e := range a.experts {
		a.ask(e, strategy.hit, page, out)
	}
}

func (a *auto) arrived(page uint64, content []byte) {
	for _, e := range a.experts {
		e.arrived(page, content)
	}
}

func place(page uint64) uint64 { return page * 0x9e3779b97f4a7c15 >> 52 }

// learn moves the scores.
func (a *auto) learn(page uint64) {
	l := &a.ledger[place(page)]
	if l.page != page {
		l.by = 0
	}
	for _, e := range a.experts {
		right := 0
		if l.by&e.bit != 0 {
			right = certain
		}
		e.score += (right - e.score) / memory
	}
	slices.SortStableFunc(a.experts, func(x, y *expert) int { return y.score - x.score })
}

// ask lets one expert name pages, notes all of them and picks what there is room for.
func (a *auto) ask(e *expert, call func(strategy, uint64, *picker), page uint64, out *picker) {
	e.out.begin(page, e.named[:0], max(shadow, out.room+beyond))
	call(e.strategy, page, &e.out)
	for _, named := range e.out.take() {
		l := &a.ledger[place(named)]
		if l.page != named {
			l.page, l.by = named, 0
		}
		l.by |= e.bit
		out.pick(named)
	}
}
