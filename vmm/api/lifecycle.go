package api

import (
	"errors"
	"fmt"
)

// Phase is where the machine of this process is in its life.
type Phase uint8

// The phases. Zero is invalid so that a forgotten field can't pass for one.
const (
	PhaseInvalid Phase = iota
	NotStarted         // configurable, no guest yet
	Incoming           // a destination that waits for, or takes in, a guest
	Running
	Paused
	Migrating  // the source's side of a migration; Lifecycle.Before says what it was
	InDoubt    // after a cut at the commit: nothing runs here until it is resolved
	Serving    // the guest runs elsewhere and fetches its memory from here: the source of a post-copy
	StandingBy // the guest has moved; a checkpoint of it is kept, from which it can go on here
	Ended      // powered off, moved away, discarded or stopped
)

var phaseNames = [...]string{
	"invalid", "not started", "incoming", "running", "paused", "migrating", "in doubt", "serving memory", "standby", "ended",
}

func (p Phase) String() string {
	if int(p) >= len(phaseNames) {
		return fmt.Sprintf("phase(%d)", uint8(p))
	}
	return phaseNames[p]
}

// Event is what happens to a Lifecycle: a client's request, or a report of the
// Controller.
type Event uint8

// The events.
const (
	EventInvalid Event = iota

	// Requests of clients.
	Configure
	Start
	Pause
	Resume
	Migrate
	Cancel
	Recover // connect a post-copy anew
	Keep    // resolve a doubt: the guest is ours
	Discard // resolve a doubt: the guest runs elsewhere
	Stop

	// Reports of the Controller.
	GuestKept          // a migration failed or was cancelled: the source has its guest again
	GuestMoved         // a migration is complete: the guest runs elsewhere
	GuestLeft          // the guest runs elsewhere, and its memory follows it
	GuestInDoubt       // neither side knows yet who owns the guest
	GuestKeptAway      // a migration is complete, and the source keeps a checkpoint of the guest
	GuestArrived       // an incoming guest runs here
	GuestArrivedPaused // an incoming guest is here, paused as it was at the source
	GuestEnded         // power-off, or an error that no vCPU survives
)

var eventNames = [...]string{
	"invalid", "configure", "start", "pause", "resume", "migrate", "cancel the migration",
	"recover", "keep the guest", "discard the guest", "stop", "guest kept", "guest moved", "guest left", "guest in doubt", "guest kept away",
	"guest arrived", "guest arrived paused", "guest ended",
}

func (e Event) String() string {
	if int(e) >= len(eventNames) {
		return fmt.Sprintf("event(%d)", uint8(e))
	}
	return eventNames[e]
}

func (e Event) isReport() bool { return e >= GuestKept && e <= GuestEnded }

// Lifecycle is the pure state machine: a value, no lock, no clock.
//
// Invariant: Before is Running or Paused while Phase is Migrating or InDoubt, and
// PhaseInvalid otherwise.
type Lifecycle struct {
	Phase  Phase
	Before Phase // where GuestKept and Keep lead back to
}

// ConflictError refuses an event that does not fit the phase.
type ConflictError struct {
	Event Event
	Phase Phase
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("cannot %s: %s", e.Event, reason(e.Phase, e.Event))
}

// errAlready says that a request finds what it asks for: success, with nothing to do.
// Firecracker answers a second Paused or Resumed in the same way.
var errAlready = errors.New("already so")

// back stands in the table for Lifecycle.Before.
const back Phase = 0xff

// transitions holds every legal step; what is absent is a conflict.
var transitions = map[Phase]map[Event]Phase{
	NotStarted: {Configure: NotStarted, Start: Running, Stop: Ended, GuestEnded: Ended},
	Incoming: {
		Stop: Ended, GuestArrived: Running, GuestArrivedPaused: Paused,
		GuestInDoubt: InDoubt, GuestEnded: Ended,
	},
	Running: {
		Pause: Paused, Resume: Running, Migrate: Migrating, Stop: Ended, GuestEnded: Ended,
		GuestArrivedPaused: Paused, // Keep at a destination does not know how the guest was
	},
	Paused: {Pause: Paused, Resume: Running, Migrate: Migrating, Stop: Ended, GuestEnded: Ended},
	Migrating: {
		Cancel: Migrating, GuestKept: back, GuestMoved: Ended, GuestLeft: Serving, GuestInDoubt: InDoubt, GuestEnded: Ended,
		GuestKeptAway: StandingBy, GuestArrived: Running, GuestArrivedPaused: Paused,
	},
	StandingBy: {
		Keep: StandingBy, Discard: StandingBy, // what comes of it is reported
		GuestArrived: Running, GuestArrivedPaused: Paused, GuestMoved: Ended, Stop: Ended, GuestEnded: Ended,
	},
	InDoubt: {
		Keep: back, Discard: Ended, GuestKept: back, GuestMoved: Ended, GuestLeft: Serving, GuestEnded: Ended,
		GuestArrived: Running, GuestArrivedPaused: Paused, // the source came back, or is proved dead
		GuestKeptAway: StandingBy,
	},
	Serving: {
		Recover: Serving, GuestMoved: Ended, GuestEnded: Ended,
		// A source that is kept; Keep is for a destination that is declared dead.
		Keep: Serving, GuestKeptAway: StandingBy, GuestArrived: Running, GuestArrivedPaused: Paused,
	},
	Ended: {Stop: Ended},
}

// Step returns the lifecycle after e, or a *ConflictError, or errAlready; with an
// error the lifecycle is unchanged.
func (l Lifecycle) Step(e Event) (Lifecycle, error) {
	if l.Phase == Ended && e.isReport() {
		return l, nil // a report may lose the race against a stop or a power-off
	}
	next, ok := transitions[l.Phase][e]
	if !ok {
		return l, &ConflictError{Event: e, Phase: l.Phase}
	}
	switch {
	case next == back:
		return Lifecycle{Phase: l.Before}, nil
	case next == l.Phase && (e == Pause || e == Resume):
		return l, errAlready
	case next == Migrating && l.Phase != Migrating:
		return Lifecycle{Phase: Migrating, Before: l.Phase}, nil
	case next == InDoubt && l.Phase == Incoming:
		return Lifecycle{Phase: InDoubt, Before: Running}, nil
	case next == InDoubt || next == Migrating:
		return Lifecycle{Phase: next, Before: l.Before}, nil
	}
	return Lifecycle{Phase: next}, nil
}

// State folds the phase into the three states that Firecracker's clients know: a
// migrating guest is what it was before, a guest in doubt does not run, and a
// process that has no guest (yet, or any more) is "Not started".
func (l Lifecycle) State() string {
	phase := l.Phase
	if phase == Migrating {
		phase = l.Before
	}
	switch phase {
	case Running:
		return StateRunning
	case Paused, InDoubt:
		return StatePaused
	}
	return StateNotStarted
}

const leftText = "the guest runs at the destination and fetches its memory from here"

// reason says why a phase refuses an event, with the next step for the user.
func reason(p Phase, e Event) string {
	switch {
	case e == Cancel && p == Serving:
		return "it is too late: " + leftText
	case e == Cancel && p != InDoubt:
		return "no migration is in progress"
	case e == Recover:
		return "no guest that has left fetches its memory from here"
	case (e == Keep || e == Discard) && p != Migrating:
		return "no migration is in doubt"
	}
	switch p {
	case NotStarted:
		return "the machine has not been started: start it first"
	case Incoming:
		return "the machine waits for an incoming migration: migrate a guest to it, or stop it"
	case Running, Paused:
		return "the machine has been started already"
	case Migrating:
		return "a migration is in progress: cancel it first (fineline cancel)"
	case StandingBy:
		return "the guest has moved, and this process keeps checkpoints of it: fineline stop gives them up; " +
			"if the guest's process is dead, fineline resume --in-doubt keep lets the guest go on here"
	case InDoubt:
		return "the outcome of a migration is in doubt: look at the other side and settle it first, " +
			"with fineline resume --in-doubt keep (the guest runs nowhere else) or discard (it runs there)"
	case Serving:
		return leftText + "; this process ends when all has gone. Two signals (Ctrl-C, SIGTERM) end it at once, and the guest with it"
	case Ended:
		return "the machine has ended: it can only be stopped"
	}
	return "the machine is in no valid phase"
}
