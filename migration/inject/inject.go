package inject

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// EnvVar names the environment variable that holds the plan.
const EnvVar = "FINELINE_INJECT"

// Point names an instant of a migration. Where a phase is journalled it is right after that, and before
// anything that follows it.
type Point string

// The points, in the order in which a migration passes them. Those that say so are passed many times.
const (
	SourcePreflight  Point = "source.preflight"
	SourcePrecopy    Point = "source.precopy"
	SourceRound      Point = "source.round" // before each round while the guest runs
	SourceBatch      Point = "source.batch" // before each batch of pages of a round, paused ones too
	SourcePaused     Point = "source.paused"
	SourceAbsent     Point = "source.absent" // ABSENT was sent, STATE was not
	SourceStateSent  Point = "source.state-sent"
	SourceCommitSent Point = "source.commit-sent"
	SourceServing    Point = "source.serving"
	SourcePush       Point = "source.push"      // before each batch of pages of the background in post-copy
	SourceRecovered  Point = "source.recovered" // each time a connection in post-copy was replaced
	SourceDone       Point = "source.done"
	SourceCancelled  Point = "source.cancelled"
	SourceFailed     Point = "source.failed"

	DestinationAccepted  Point = "destination.accepted"
	DestinationReceiving Point = "destination.receiving"
	DestinationRound     Point = "destination.round"  // each round is stored, ROUND_ACK was not sent
	DestinationAbsent    Point = "destination.absent" // the pages of ABSENT are absent
	DestinationReady     Point = "destination.ready"
	DestinationOwner     Point = "destination.owner"
	DestinationPaging    Point = "destination.paging"
	DestinationPage      Point = "destination.page"      // before each page that arrives in post-copy is stored
	DestinationRecovered Point = "destination.recovered" // each time the source came back in post-copy
	DestinationComplete  Point = "destination.complete"
	DestinationDiscarded Point = "destination.discarded"
)

var points = []Point{
	SourcePreflight, SourcePrecopy, SourceRound, SourceBatch, SourcePaused, SourceAbsent, SourceStateSent, SourceCommitSent,
	SourceServing, SourcePush, SourceRecovered, SourceDone, SourceCancelled, SourceFailed,
	DestinationAccepted, DestinationReceiving, DestinationRound, DestinationAbsent, DestinationReady, DestinationOwner,
	DestinationPaging, DestinationPage, DestinationRecovered, DestinationComplete, DestinationDiscarded,
}

// The points that only a migration passes whose source is kept.
const (
	SourceStandby         Point = "source.standby"
	SourceCheckpoint      Point = "source.checkpoint" // each time that a whole checkpoint has come and is not yet applied
	SourceResumed         Point = "source.resumed-from-checkpoint"
	DestinationCheckpoint Point = "destination.checkpoint"   // each time that the pages of one are sent, and not yet its state
	DestinationAcked      Point = "destination.acknowledged" // each time that one is the source's
	DestinationEnded      Point = "destination.ended"
)

var standbyPoints = []Point{
	SourceStandby, SourceCheckpoint, SourceResumed, DestinationCheckpoint, DestinationAcked, DestinationEnded,
}

// StandbyPoints lists them; Points does not.
func StandbyPoints() []Point { return slices.Clone(standbyPoints) }

// Points lists every other point; tests enumerate it.
func Points() []Point { return slices.Clone(points) }

// Action is what happens at a point.
type Action string

// The actions.
const (
	Kill  Action = "kill"  // SIGKILL to this process: no deferred call runs
	Cut   Action = "cut"   // the connections to the peer are closed
	Stall Action = "stall" // the connections to the peer carry nothing any more and stay open
	Error Action = "error" // the step that would follow fails
)

// Actions lists every action; tests enumerate it.
func Actions() []Action { return []Action{Kill, Cut, Stall, Error} }

// ErrInjected is the cause of every failure made by the Error action.
var ErrInjected = errors.New("injected fault")

// Plan says what happens where. A nil Plan does nothing. Its methods are safe for concurrent use.
type Plan struct {
	actions map[passing]Action
	stalls  bool // one of the actions is Stall
	kill    func()

	mu     sync.Mutex
	passed map[Point]int
	conns  []*stallable // good ones
	held   []*stallable // those that stand still
}

// passing is the n-th time, from 1, that a point is passed.
type passing struct {
	point Point
	n     int
}

// Parse reads the form of EnvVar. The empty string is an empty plan.
func Parse(text string) (*Plan, error) {
	plan := &Plan{actions: map[passing]Action{}, kill: killSelf, passed: map[Point]int{}}
	if text == "" {
		return plan, nil
	}
	for item := range strings.SplitSeq(text, ",") {
		if err := plan.add(item); err != nil {
			return nil, fmt.Errorf("fault plan %q: %w", text, err)
		}
	}
	return plan, nil
}

// add reads one item of a plan.
func (p *Plan) add(item string) error {
	where, action, ok := strings.Cut(item, "=")
	if !ok {
		return fmt.Errorf("%q lacks '=': want <side>.<phase>[#<n>]=kill|cut|stall|error", item)
	}
	name, number, many := strings.Cut(where, "#")
	n := 1
	if many {
		var err error
		if n, err = strconv.Atoi(number); err != nil || n < 1 {
			return fmt.Errorf("%q: which passing is %q? give a number from 1", item, number)
		}
	}
	if !slices.Contains(points, Point(name)) && !slices.Contains(standbyPoints, Point(name)) {
		return fmt.Errorf("no point is called %q; known points: %v %v", name, points, standbyPoints)
	}
	if !slices.Contains(Actions(), Action(action)) {
		return fmt.Errorf("unknown action %q; use kill, cut, stall or error", action)
	}
	p.actions[passing{Point(name), n}] = Action(action)
	p.stalls = p.stalls || Action(action) == Stall
	return nil
}

// FromEnv reads the plan of this process.
func FromEnv() (*Plan, error) {
	plan, err := Parse(os.Getenv(EnvVar))
	if err != nil {
		return nil, fmt.Errorf("environment variable %s: %w", EnvVar, err)
	}
	return plan, nil
}

// WithKill returns the plan anew, nothing passed, with a Kill action that calls kill instead of ending the process. A
// test that holds both sides in one process models the death of one of them so.
func (p *Plan) WithKill(kill func()) *Plan {
	return &Plan{actions: p.actions, stalls: p.stalls, kill: kill, passed: map[Point]int{}}
}

// At performs what the plan says for this passing of the point. cut closes the connections to the peer.
func (p *Plan) At(point Point, cut func()) error {
	if p == nil || len(p.actions) == 0 {
		return nil
	}
	switch p.actions[p.pass(point)] {
	case Kill:
		p.kill()
		return fmt.Errorf("%s: %w", point, ErrInjected)
	case Cut:
		cut()
	case Stall:
		p.stall()
	case Error:
		return fmt.Errorf("%s: %w", point, ErrInjected)
	}
	return nil
}

func (p *Plan) pass(point Point) passing {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.passed[point]++
	return passing{point, p.passed[point]}
}

// Passed is how often the point was passed so far.
func (p *Plan) Passed(point Point) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.passed[point]
}

func killSelf() {
	// SIGKILL to oneself is delivered before the call returns to user code.
	_ = unix.Kill(os.Getpid(), unix.SIGKILL)
}
