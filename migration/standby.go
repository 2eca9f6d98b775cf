package migration

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fineline-vmm/fineline/migration/inject"
	"github.com/fineline-vmm/fineline/migration/journal"
	"github.com/fineline-vmm/fineline/migration/wire"
)

// Rewinder is a Source that can go on from a checkpoint of its guest.
type Rewinder interface {
	// RestoreState puts the machine, paused since it was given away, into the state of a checkpoint, whose
	// memory is in place. Resume then lets the guest go on as that state says.
	RestoreState(state []byte) error
}

// DefaultCheckpointInterval is how often a checkpoint is taken.
const DefaultCheckpointInterval = 100 * time.Millisecond

// Standby is a source that is kept after its guest has moved: it can go on from the destination's last checkpoint.
// See "the reverse stream" in the package comment. Its methods are safe for concurrent use.
type Standby struct {
	interval time.Duration
	asks     chan *ask
	began    chan *sender  // capacity 1: from Send to Wait
	over     chan struct{} // closed when nothing can be asked any more
	keeper   chan *keeper  // capacity 1: the one, once there is one
}

// NewStandby is for one Send. An interval of 0 is DefaultCheckpointInterval.
func NewStandby(interval time.Duration) (*Standby, error) {
	setDefault(&interval, DefaultCheckpointInterval)
	if interval < time.Millisecond || interval > wire.MaxCheckpointMS*time.Millisecond {
		return nil, fmt.Errorf("a checkpoint every %v: choose 1ms to 1h", interval)
	}
	return &Standby{
		interval: interval, asks: make(chan *ask), began: make(chan *sender, 1), over: make(chan struct{}), keeper: make(chan *keeper, 1),
	}, nil
}

// StandbyStatus is what a source that is kept holds.
type StandbyStatus struct {
	Active     bool    `json:"active"`      // the guest has moved
	Checkpoint uint64  `json:"checkpoint"`  // the newest whole one; 0: the guest as it was at the switch
	AgeMS      float64 `json:"age_ms"`      // since it came; 0 before the switch
	IntervalMS float64 `json:"interval_ms"` // between it and the one before: what was asked for, or more, see checkpointPeriod
	Connected  bool    `json:"connected"`
	// Doubt: the destination is gone, and why that is no proof that its guest may run here.
	Doubt string `json:"doubt,omitempty"`

	// Of the newest checkpoint, and of all.
	Bytes      uint64 `json:"bytes"`
	Pages      uint64 `json:"pages"`
	Lines      uint64 `json:"lines"`
	PauseUS    uint64 `json:"pause_us"` // how long the guest stood still for it
	TotalBytes uint64 `json:"total_bytes"`
	MaxPauseUS uint64 `json:"max_pause_us"`
	Missed     uint64 `json:"missed"` // times that a vCPU was waiting for memory
}

// add counts a checkpoint.
func (s *StandbyStatus) add(end *wire.CheckpointEnd, bytes uint64) {
	s.Checkpoint, s.Bytes, s.Pages, s.Lines, s.PauseUS = end.Number, bytes, end.Pages, end.Lines, end.PauseUS
	s.TotalBytes += bytes
	s.MaxPauseUS = max(s.MaxPauseUS, end.PauseUS)
	s.Missed += end.Missed
}

// ResumedError: the guest had moved, and runs here again, as it was in a checkpoint: the destination is dead, or a human
// says so.
type ResumedError struct {
	Checkpoint uint64        // 0: as it was at the switch
	Age        time.Duration // since that checkpoint came
	ByHand     bool
}

func (e *ResumedError) Error() string {
	why := "the destination died"
	if e.ByHand {
		why = "the destination was declared dead"
	}
	return fmt.Sprintf("%s; the guest goes on here from checkpoint %d, which came %v before", why, e.Checkpoint, e.Age.Round(time.Millisecond))
}

var (
	// ErrStandbyOver: there is nothing to take over or to release (any more).
	ErrStandbyOver = errors.New("this process keeps no guest that has moved")
	// errAlive: the word of a human against that of the destination.
	errAlive = errors.New("the destination answers, and its guest may run: stop it there")
	// errJustDied: the word of a human where there is proof.
	errJustDied = errors.New("the destination has just died, and what it has left behind decides: look at the status")
	// errStillServing: a release before all memory has moved.
	errStillServing = errors.New("the guest still needs memory from here")
	// errByHand: a human has declared the destination dead.
	errByHand = errors.New("declared dead by hand")
)

// ask is a human's wish.
type ask struct {
	takeOver bool // else release
	answer   chan error
}

// refuse answers a wish while the destination fetches memory.
func (a *ask) refuse() {
	if a.takeOver {
		a.answer <- errAlive
		return
	}
	a.answer <- errStillServing
}

// TakeOver resumes the guest here, on the word of a human that its destination does not run and never will. It is refused where
// the destination answers, or its process is seen to live; nothing checks it elsewhere, and a wrong word makes two guests of
// one. When it returns nil the guest runs; what became of it Wait, or Send, returns.
func (st *Standby) TakeOver() error { return st.ask(&ask{takeOver: true, answer: make(chan error, 1)}) }

// Release gives the guest up for good: it is the destination's alone.
func (st *Standby) Release() error { return st.ask(&ask{answer: make(chan error, 1)}) }

func (st *Standby) ask(a *ask) error {
	select {
	case st.asks <- a:
		return <-a.answer
	case <-st.over:
		return ErrStandbyOver
	}
}

// Status is the present one.
func (st *Standby) Status() StandbyStatus {
	select {
	case k := <-st.keeper:
		st.keeper <- k
		status := k.Status()
		status.Active = true
		return status
	default:
		return StandbyStatus{}
	}
}

// Wait stands by until the guest is the destination's alone (nil: src was released) or runs here again (a *ResumedError).
// The end of ctx is a Release. Call it once, after a Send that returned no error.
func (st *Standby) Wait(ctx context.Context) error {
	select {
	case s := <-st.began:
		err := s.standBy(ctx.Done())
		s.endStandby()
		return err
	default:
		return nil // it ended in Send
	}
}

// checkStandby judges whether a source can be kept.
func (o *SendOptions) checkStandby(src Source) error {
	if o.Standby == nil {
		return nil
	}
	if _, ok := src.(Rewinder); !ok {
		return errors.New("this machine can't go back to a checkpoint")
	}
	if o.Mode == wire.ModeLocal {
		return errors.New("a source that is kept needs a copy of the memory, and a local hand-over makes none")
	}
	return nil
}

// keep begins to take checkpoints: the guest is the destination's. The journal says so for humans.
func (s *sender) keep() {
	if err := s.note(journal.Standby, ""); err != nil {
		s.opts.Log.Warnf("migration: %v", err)
	}
	s.keeper.begin()
	s.opts.Standby.keeper <- s.keeper
	// The guest is away, and is kept whatever fails here, so the Error action has nothing to do.
	_ = s.inject(inject.SourceStandby)
}

// stands says whether Send ends with a source that is kept, and hands that on to Wait.
func (s *sender) stands(err error) bool {
	if s.keeper == nil {
		return false
	}
	if err == nil && s.gaveAway && !s.released {
		s.opts.Standby.began <- s
		return true
	}
	var doubt *InDoubtError
	if !errors.As(err, &doubt) {
		close(s.opts.Standby.over)
	}
	return false
}

// endStandby is finish for what Send has left.
func (s *sender) endStandby() {
	close(s.opts.Standby.over)
	s.keeper.use(nil)
	if s.watch != nil {
		s.watch.Close()
		s.watch = nil
	}
}

// asked yields what humans want of a source that is kept; never, of one that is not.
func (s *sender) asked() <-chan *ask {
	if s.opts.Standby == nil {
		return nil
	}
	return s.opts.Standby.asks
}

// answerServing answers a wish while memory is to be sent and there is no connection. It reports whether the
// guest is to be taken over, which serveEnded then does and answers.
func (s *sender) answerServing(a *ask) bool {
	if !a.takeOver {
		a.refuse()
		return false
	}
	if !s.heardDead(a, s.death()) {
		return false
	}
	s.takingOver = a
	return true
}

// heardDead answers a human who declares the destination dead, if that is refused: the destination is heard, on a new connection
// or on the one that there is; its process is seen to live; or it tells more than the human did, that its guest has ended or,
// when it has died meanwhile, what its journal says. dead is nil if its death can't be proved, or is and did not settle it.
// Otherwise it reports that the guest is to be taken over.
func (s *sender) heardDead(a *ask, dead <-chan struct{}) bool {
	st, err := s.keeper.connect(context.Background())
	if err == nil {
		_ = st.conn.Close()
	}
	if err == nil || s.keeper.answers(dead) {
		a.answer <- errAlive
		return false
	}
	select {
	case <-s.keeper.ended:
		err = errEnded
	case <-dead:
		err = errJustDied
	case <-time.After(lastBytes): // who dies loses its connections before that is proved
		err = nil
		if dead != nil {
			err = livesError("destination", s.peer.Process)
		}
	}
	if err == nil {
		err = s.opts.Journal.Append(s.record(journal.Resumed, errByHand.Error()))
	}
	if err != nil {
		a.answer <- err
	}
	return err == nil
}

// serveEnded is for a guest whose memory did not all move and that is kept.
func (s *sender) serveEnded(cause error) error {
	switch {
	case errors.Is(cause, errByHand):
		return s.takeOver(s.takingOver)
	case errors.Is(cause, ErrDestinationDied):
		if err := s.standBy(s.opts.GiveUp); err != nil {
			return err
		}
		return cause // and nobody wants it here
	}
	s.keeper.end()
	s.release()
	return cause
}

// standBy waits for what ends a Standby; closing enough is a release.
func (s *sender) standBy(enough <-chan struct{}) error {
	dead := s.death()
	for {
		if s.destinationDead() && dead != nil { // before anything that may be the case, too
			dead = nil // once is enough: a dead process adds nothing to its journal
			switch err := s.judgeOwner(); {
			case err == nil:
				return s.takeBack(false)
			case errors.Is(err, errEnded):
				return s.letGo()
			default:
				s.keeper.doubt(err)
				s.opts.Log.Warnf("migration: in doubt whether to go on from a checkpoint: %v; look at the destination's host and decide: %s", err, HowToDecide)
			}
		}
		select {
		case <-dead:
		case <-s.keeper.ended:
			return s.letGo()
		case <-enough:
			return s.letGo()
		case a := <-s.asked():
			if !a.takeOver {
				defer func() { a.answer <- nil }()
				return s.letGo()
			}
			if s.heardDead(a, dead) {
				return s.takeOver(a)
			}
		}
	}
}

// judgeOwner reads the journal of a destination that is proved dead. It returns nil if that died with its guest, and
// errEnded if the guest had ended there.
func (s *sender) judgeOwner() error {
	records, err := journal.ReadFile(s.peer.Journal)
	if err != nil {
		return fmt.Errorf("the destination is dead and its journal cannot be read: %w", err)
	}
	phase, _ := lastPhase(records, s.opts.MachineID, s.generation, journal.Destination)
	switch phase {
	case journal.Owner:
	case journal.Ended:
		return errEnded
	default:
		return fmt.Errorf("the destination is dead and its journal %s ends with %q", s.peer.Journal, phase)
	}
	for _, r := range records {
		switch r.Phase {
		case journal.Preflight, journal.Failed, journal.Cancelled:
			continue // of a migration that was refused, unless there are others: the guest was not touched, nor the checkpoints ended
		}
		if r.MachineID == s.opts.MachineID && r.Generation > s.generation {
			return fmt.Errorf("the destination is dead and its journal %s says that it passed the guest on", s.peer.Journal)
		}
	}
	return nil
}

// takeOver is takeBack on the word of a human, who is told when the guest goes on, or why it does not.
func (s *sender) takeOver(a *ask) error {
	err := s.takeBack(true)
	if errors.As(err, new(*ResumedError)) {
		a.answer <- nil
	} else {
		a.answer <- err
	}
	return err
}

// takeBack lets the guest go on here, as it was in the last whole checkpoint. By hand: the journal says so already.
func (s *sender) takeBack(byHand bool) error {
	s.keeper.end()
	status := s.keeper.Status()
	resumed := &ResumedError{Checkpoint: status.Checkpoint, Age: time.Duration(status.AgeMS * float64(time.Millisecond)), ByHand: byHand}
	if !byHand {
		if err := s.opts.Journal.Append(s.record(journal.Resumed, resumed.Error())); err != nil {
			// Only a human would read it, and the destination is dead: better without it than no guest.
			s.opts.Log.Warnf("migration: %v", err)
		}
	}
	// The guest must go on whatever happens here, so the Error action has nothing to do.
	_ = s.inject(inject.SourceResumed)
	if state := s.keeper.state; state != nil {
		if err := s.src.(Rewinder).RestoreState(state); err != nil {
			return s.lose(fmt.Errorf("cannot restore checkpoint %d: %w", resumed.Checkpoint, err))
		}
	}
	if err := s.src.Resume(); err != nil {
		return s.lose(fmt.Errorf("cannot resume the guest: %w", err))
	}
	s.paused, s.gaveAway = false, false
	s.opts.Journal.Settle(s.opts.MachineID, s.generation)
	s.opts.Log.Warnf("migration: %v", resumed)
	return resumed
}

// lose gives a guest up that can't go on from its checkpoint.
func (s *sender) lose(cause error) error {
	s.release()
	return fmt.Errorf("%w: %w", ErrDestinationDied, cause)
}

// letGo ends a Standby: the guest is the destination's alone, or has ended there.
func (s *sender) letGo() error {
	said := s.destinationDead() || s.keeper.sayDone()
	s.keeper.end()
	if s.destinationDead() || s.keeper.farewell() || said {
		s.opts.Journal.Settle(s.opts.MachineID, s.generation)
	}
	s.release()
	return nil
}
