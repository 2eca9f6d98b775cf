package inject

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// EnvVar names the environment variable that holds the plan.
const EnvVar = "FINELINE_INJECT"

// Point names the instant right after one phase was journalled and before anything that follows it.
type Point string

// The points, in the order in which a migration passes them.
const (
	SourcePreflight  Point = "source.preflight"
	SourcePrecopy    Point = "source.precopy"
	SourcePaused     Point = "source.paused"
	SourceStateSent  Point = "source.state-sent"
	SourceCommitSent Point = "source.commit-sent"
	SourceServing    Point = "source.serving"
	SourceDone       Point = "source.done"
	SourceCancelled  Point = "source.cancelled"
	SourceFailed     Point = "source.failed"

	DestinationAccepted  Point = "destination.accepted"
	DestinationReceiving Point = "destination.receiving"
	DestinationReady     Point = "destination.ready"
	DestinationOwner     Point = "destination.owner"
	DestinationPaging    Point = "destination.paging"
	DestinationComplete  Point = "destination.complete"
	DestinationDiscarded Point = "destination.discarded"
)

var points = []Point{
	SourcePreflight, SourcePrecopy, SourcePaused, SourceStateSent, SourceCommitSent,
	SourceServing, SourceDone, SourceCancelled, SourceFailed,
	DestinationAccepted, DestinationReceiving, DestinationReady, DestinationOwner,
	DestinationPaging, DestinationComplete, DestinationDiscarded,
}

// Points lists every point; tests enumerate it.
func Points() []Point { return slices.Clone(points) }

// Action is what happens at a point.
type Action string

// The actions.
const (
	Kill  Action = "kill"  // SIGKILL to this process: no deferred call runs
	Cut   Action = "cut"   // the connection to the peer is closed
	Error Action = "error" // the step that would follow fails
)

// Actions lists every action; tests enumerate it.
func Actions() []Action { return []Action{Kill, Cut, Error} }

// ErrInjected is the cause of every failure made by the Error action.
var ErrInjected = errors.New("injected fault")

// Plan says what happens where. A nil Plan does nothing. It is read-only once in use.
type Plan struct {
	actions map[Point]Action
	kill    func()
}

// Parse reads the form of EnvVar. The empty string is an empty plan.
func Parse(text string) (*Plan, error) {
	plan := &Plan{actions: map[Point]Action{}, kill: killSelf}
	if text == "" {
		return plan, nil
	}
	for item := range strings.SplitSeq(text, ",") {
		name, action, ok := strings.Cut(item, "=")
		if !ok {
			return nil, fmt.Errorf("fault plan %q: %q lacks '=': want <side>.<phase>=kill|cut|error", text, item)
		}
		if !slices.Contains(points, Point(name)) {
			return nil, fmt.Errorf("fault plan %q: no point is called %q; known points: %v", text, name, points)
		}
		if !slices.Contains(Actions(), Action(action)) {
			return nil, fmt.Errorf("fault plan %q: unknown action %q; use kill, cut or error", text, action)
		}
		plan.actions[Point(name)] = Action(action)
	}
	return plan, nil
}

// FromEnv reads the plan of this process.
func FromEnv() (*Plan, error) {
	plan, err := Parse(os.Getenv(EnvVar))
	if err != nil {
		return nil, fmt.Errorf("environment variable %s: %w", EnvVar, err)
	}
	return plan, nil
}

// WithKill returns a plan whose Kill action calls kill instead of ending the process. A test that
// holds both sides in one process models the death of one of them so.
func (p *Plan) WithKill(kill func()) *Plan { return &Plan{actions: p.actions, kill: kill} }

// At performs what the plan says for the point. cut closes the connection to the peer.
func (p *Plan) At(point Point, cut func()) error {
	if p == nil {
		return nil
	}
	switch p.actions[point] {
	case Kill:
		p.kill()
		return fmt.Errorf("%s: %w", point, ErrInjected)
	case Cut:
		cut()
	case Error:
		return fmt.Errorf("%s: %w", point, ErrInjected)
	}
	return nil
}

func killSelf() {
	// SIGKILL to oneself is delivered before the call returns to user code.
	_ = unix.Kill(os.Getpid(), unix.SIGKILL)
}
