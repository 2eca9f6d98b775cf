package coherence

import (
	"errors"
	"fmt"
)

// Classes of error that a caller can act on; every error of this package wraps one.
var (
	// ErrConfig: the configuration cannot be built.
	ErrConfig = errors.New("bad coherence configuration")
	// ErrCache: there is no such cache.
	ErrCache = errors.New("no such cache")
	// ErrRange: a line beyond the address space, or an empty range.
	ErrRange = errors.New("bad line range")
	// ErrBusy: the cache has an access outstanding, or the region a harvest or a
	// stop; await the effect that ends it.
	ErrBusy = errors.New("busy")
	// ErrRegion: the region does not exist, exists already, or is in the wrong state.
	ErrRegion = errors.New("bad region")
	// ErrNoMessage: there is no such message in flight.
	ErrNoMessage = errors.New("no such message")
	// ErrProtocol: a message that its receiver cannot have got from a node that
	// follows the protocol. It was dropped.
	ErrProtocol = errors.New("unexpected coherence message")
	// ErrState: a saved state that cannot be restored.
	ErrState = errors.New("bad saved coherence state")
)

func unexpected(m Message, why string) error {
	return fmt.Errorf("%w: %v: %s", ErrProtocol, m, why)
}
