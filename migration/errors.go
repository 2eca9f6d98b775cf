package migration

import (
	"context"
	"errors"
	"fmt"
)

// Classes of failure that a caller acts on. Where the guest is then, Send and Receive say.
var (
	// ErrTimeout: the time allowed for the migration is over.
	ErrTimeout = errors.New("the migration took longer than allowed")
	// ErrConnectionLost: the connection to the peer ended.
	ErrConnectionLost = errors.New("the connection to the peer was lost")
	// ErrPeerSilent: the peer did not answer in time.
	ErrPeerSilent = errors.New("the peer does not answer")
	// ErrStopped: the destination's Listener was closed before the commit.
	ErrStopped = errors.New("the destination was stopped")
	// ErrGiveUp: post-copy ended without the rest of the memory, because SendOptions.GiveUp said so.
	ErrGiveUp = errors.New("the rest of the guest's memory was given up")
	// ErrMemoryLost: post-copy, at the destination. The source is gone and with it memory that had not come.
	ErrMemoryLost = errors.New("a part of the guest's memory is lost")
	// ErrDestinationDied: after the commit. The guest died with the process that owned it.
	ErrDestinationDied = errors.New("the destination took the guest over and died")
	// ErrNotStarted: the destination owns the guest and keeps it paused, because it could not start.
	ErrNotStarted = errors.New("the destination owns the guest but could not start it")
)

// RefusedError: the destination will not take this machine; nothing was stopped.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return "the destination refused: " + e.Reason }

// AbortedError: the peer gave the migration up.
type AbortedError struct {
	Reason    string
	Cancelled bool // on request
}

func (e *AbortedError) Error() string {
	if e.Cancelled {
		return "the peer cancelled the migration: " + e.Reason
	}
	return "the peer gave the migration up: " + e.Reason
}

// DiscardedError: the destination threw the incoming machine away. The guest is not here.
type DiscardedError struct {
	// Accepted: the source had been promised that its machine is taken. Without that nothing has happened.
	Accepted bool
	Cause    error
}

func (e *DiscardedError) Error() string {
	return fmt.Sprintf("incoming migration failed, nothing runs here: %v; the guest is at the source, if that lives: start this process again for another attempt", e.Cause)
}

func (e *DiscardedError) Unwrap() error { return e.Cause }

// InDoubtError: COMMIT may have reached the destination and nothing answers now. The guest is paused
// here and must neither be resumed nor be thrown away before its fate is known. Retry asks again;
// ResolveInDoubt takes a human's word.
type InDoubtError struct {
	MachineID  string
	Generation uint64
	Cause      error

	sender *sender
}

func (e *InDoubtError) Error() string {
	return fmt.Sprintf("in doubt whether the destination runs the guest (machine %s, generation %d): %v; "+
		"it stays paused here, and the destination is asked again and again; if it cannot answer, look there and decide: %s", e.MachineID, e.Generation, e.Cause, HowToDecide)
}

func (e *InDoubtError) Unwrap() error { return e.Cause }

// HowToDecide is what a human types to end a doubt, on either side.
const HowToDecide = "fineline resume --in-doubt keep (the guest runs nowhere else) or --in-doubt discard (it runs there)"

// errJustCommitted: a human's "here" was given before the destination was heard and told to run.
var errJustCommitted = errors.New("the destination has just answered that it holds the guest and was told to run it; " +
	"see with `fineline status` what comes of it before you decide")

// cancelledError hides what a step failed with when it was interrupted.
type cancelledError struct{ cause error }

func (e *cancelledError) Error() string { return "cancelled on request" }
func (e *cancelledError) Unwrap() error { return e.cause }

// isCancel reports whether the migration ended because somebody asked for it.
func isCancel(ctx context.Context, err error) bool {
	var aborted *AbortedError
	if errors.As(err, &aborted) {
		return aborted.Cancelled
	}
	return errors.Is(context.Cause(ctx), context.Canceled) // and not a caller's own cause, which is a failure
}
