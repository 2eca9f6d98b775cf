package hostile

import (
	"fmt"
	"math/rand/v2"

	"github.com/fineline-vmm/fineline/migration/wire"
)

// Deed is what a man in the middle does to one frame.
type Deed int

// The deeds.
const (
	Flip     Deed = iota // one bit, of header or payload
	Drop                 // it never arrives
	Repeat               // it arrives twice
	Swap                 // it arrives after the next one of its direction
	Delay                // for LongDelay
	Truncate             // its first half arrives, and the connection ends
	Stray                // it arrives on another connection, if there is one
	Inject               // one of another type arrives before it
	Replay               // one that passed before arrives before it, of an earlier hand-over if there was one
	Close                // its connection is closed before it
	deedCount
)

var deedNames = [deedCount]string{"flip", "drop", "repeat", "swap", "delay", "truncate", "stray", "inject", "replay", "close"}

func (d Deed) String() string { return deedNames[d] }

// Deeds lists every deed; tests enumerate it.
func Deeds() []Deed {
	all := make([]Deed, deedCount)
	for i := range all {
		all[i] = Deed(i)
	}
	return all
}

// Plan is one deed at one frame, counted over all connections and both directions as they come.
type Plan struct {
	Deed  Deed
	Frame int    // from 0
	Seed  uint64 // of what else is to be chosen
	// Forge: what is changed, and everything after it on its connection, gets a right number and checksum.
	Forge bool
}

// NewPlan chooses a frame among the first frames, and a deed.
func NewPlan(seed uint64, frames int, forge bool) Plan {
	r := rand.New(rand.NewPCG(seed, 0))
	return Plan{Deed: Deed(r.IntN(int(deedCount))), Frame: r.IntN(frames), Seed: seed, Forge: forge}
}

func (p Plan) String() string {
	return fmt.Sprintf("%s at frame %d, forge %v, seed %d", p.Deed, p.Frame, p.Forge, p.Seed)
}

// flip changes one bit of a frame; a forger's is one of the payload, if there is one.
func (p Plan) flip(f frame) frame {
	r := rand.New(rand.NewPCG(p.Seed, 1))
	out := append(frame(nil), f...)
	from := 0
	if p.Forge && len(f) > wire.HeaderBytes {
		from = wire.HeaderBytes
	}
	out[from+r.IntN(len(f)-from)] ^= 1 << r.IntN(8)
	return out
}

// another is a frame with the same payload and another type.
func (p Plan) another(f frame) frame {
	r := rand.New(rand.NewPCG(p.Seed, 2))
	out := append(frame(nil), f...)
	if len(out) < wire.HeaderBytes {
		return out
	}
	out.setKind(1 + wire.Type(r.IntN(int(wire.TypeCount-1))))
	return out
}
