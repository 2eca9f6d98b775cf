package main

import "fmt"

// lineWords is the number of 64-bit words in a line of 64 bytes.
const lineWords = 8

// kind says what an area must hold.
type kind int

const (
	churn kind = iota
	still
	zero
)

func (k kind) String() string { return [...]string{"churn", "still", "zero"}[k] }

// area is a worker's stripe of one kind. All its lines are of one generation
// between rounds. It is for one goroutine.
type area struct {
	kind       kind
	firstLine  uint64 // number of its first line over all stripes
	generation uint64
	words      []uint64
}

// newArea makes an area of that many lines, filled with generation 0.
func newArea(k kind, firstLine uint64, lines int) *area {
	a := &area{kind: k, firstLine: firstLine, words: make([]uint64, lines*lineWords)}
	if k != zero {
		for i := range a.words {
			a.words[i] = a.want(i, 0)
		}
	}
	return a
}

// want is what word i must hold: splitmix64 of where and when, so that no two
// lines, words or generations agree by chance.
func (a *area) want(i int, generation uint64) uint64 {
	if a.kind == zero {
		return 0
	}
	x := (a.firstLine*lineWords+uint64(i))*0x9e3779b97f4a7c15 + generation*0xd1342543de82ef95 + uint64(a.kind)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// check looks at lines [from, to) and, in churn, writes their next generation.
// Each wrong line is reported once and then repaired by that write.
func (a *area) check(from, to int, report func(string)) {
	for line := from; line < to; line++ {
		bad := -1
		for i := line * lineWords; i < (line+1)*lineWords; i++ {
			if a.words[i] != a.want(i, a.generation) && bad < 0 {
				bad = i
			}
		}
		if bad >= 0 {
			report(fmt.Sprintf("%s line %d word %d generation %d: want %#016x, got %#016x",
				a.kind, a.firstLine+uint64(line), bad%lineWords, a.generation,
				a.want(bad, a.generation), a.words[bad]))
		}
		if a.kind == churn {
			for i := line * lineWords; i < (line+1)*lineWords; i++ {
				a.words[i] = a.want(i, a.generation+1)
			}
		}
	}
}

// lines is the number of lines in the area.
func (a *area) lines() int { return len(a.words) / lineWords }

// endRound moves churn on to the generation that check has written.
func (a *area) endRound() {
	if a.kind == churn {
		a.generation++
	}
}
