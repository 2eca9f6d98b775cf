package fpga

import "github.com/fineline-vmm/fineline/coherence/track"

// MaxContexts is how many contexts a guest may have at a time.
const MaxContexts = 16

// Engine makes contexts of type C; *track.Engine does. It need not know this package, hence the
// type parameter.
type Engine[C Context] interface {
	// Modes are those that this machine supports.
	Modes() []track.Mode
	// MaxRanges is how many ranges all contexts together may have.
	MaxRanges() int
	// NewContext returns a context without ranges. Errors wrap track.ErrBadMode or track.ErrNoSpace, or
	// are the host's.
	NewContext(track.ContextOptions) (C, error)
	// RestoreContext makes a context from its saved form, which may be hostile. Tracking that was armed goes on
	// when the engine's owner says so, before the device is resumed.
	RestoreContext(track.ContextState) (C, error)
}

var _ Engine[*track.Context] = (*track.Engine)(nil)

// Context is a set of ranges and what was seen of them. The device calls the methods of all
// contexts from one goroutine at a time, without a lock of its own.
type Context interface {
	// Register adds ranges, also while armed: all of them or, with an error that wraps
	// track.ErrBadRange or track.ErrNoSpace, none. The ranges come from the guest unchecked, and may be
	// registered already.
	Register([]track.Range) error
	// Unregister removes ranges and what is pending in them: all or, with an error that wraps
	// track.ErrBadRange, track.ErrNotRegistered or track.ErrNoSpace (holes may cost ranges), none.
	Unregister([]track.Range) error
	// Arm begins. What was found before and nobody has harvested is forgotten.
	Arm() error
	// Stop looks a last time; what it finds waits for Harvest.
	Stop() error
	// Harvest is track.Tracker's, with max above 0. emit stores to guest memory. Pages that were emitted
	// before an error are harvested.
	Harvest(max int, emit func(track.Page)) (more bool, err error)
	// HarvestUnsnooped is Harvest that leaves alone what caches hold; called in mode Homed only.
	HarvestUnsnooped(max int, emit func(track.Page)) (more bool, err error)
	// State returns the saved form. It is called while the machine is paused, and changes nothing: the
	// machine may go on after it.
	State() (track.ContextState, error)
	// Close ends the tracking and forgets all. It is called once.
	Close() error
}

// engine is an Engine of any C.
type engine struct {
	make    func(track.ContextOptions) (Context, error)
	restore func(track.ContextState) (Context, error)

	features  uint32 // one bit a mode
	maxRanges uint32
}

func newEngine[C Context](e Engine[C]) engine {
	n := engine{
		make: func(o track.ContextOptions) (Context, error) {
			c, err := e.NewContext(o)
			return c, err
		},
		restore: func(s track.ContextState) (Context, error) {
			c, err := e.RestoreContext(s)
			return c, err
		},
		maxRanges: uint32(e.MaxRanges()),
	}
	for _, m := range e.Modes() {
		n.features |= 1 << m
	}
	return n
}
