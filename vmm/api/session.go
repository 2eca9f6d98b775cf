package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"
)

// OperationTimeout bounds one operation of a Controller: loading a large kernel on emulated
// hardware takes tens of seconds.
const OperationTimeout = 60 * time.Second

// Controller does what clients ask for. A Session calls Set*, Start, Pause, Resume, Stop,
// StartMigration, RecoverMigration and ResolveMigration one at a time and only in a phase that allows them; the
// other methods at any time. An error becomes the fault_message: one clear line, with the next
// step where there is one. No method may wait for the Session's own methods or for
// Server.Shutdown: the request would wait for itself.
type Controller interface {
	// MachineConfig returns the machine's shape: the defaults before it is set, the
	// source's once a guest has arrived.
	MachineConfig() MachineConfig
	SetMachineConfig(MachineConfig) error
	// BootSource returns false while none is set.
	BootSource() (BootSource, bool)
	// Metrics returns the counters, to be encoded as JSON; nil while there is no machine.
	Metrics() any
	// Migration returns how the latest migration is, in or out, to be encoded as JSON; nil before the first.
	Migration() any
	// MemoryUnderWay returns how many bytes of a guest's memory a post-copy has still to bring to here, or to
	// fetch from here, after the guest itself.
	MemoryUnderWay() uint64
	// Standby is what this process keeps of a guest that has moved, or nil.
	Standby() *Standby
	// Track begins to watch the lines that the guest writes, as a valid request with no field
	// left to a default says. The caller closes what it returns.
	Track(TrackRequest) (LineWatch, error)
	SetBootSource(BootSource) error
	SetLogger(LoggerConfig) error

	Start(context.Context) error
	Pause(context.Context) error // returns when no vCPU runs
	Resume(context.Context) error
	// Stop asks the VMM to end and returns; the process closes the Server afterwards.
	Stop(context.Context) error

	// StartMigration does the preflight and returns; nil means that the migration runs on
	// and will be reported to Session.MigrationEnded. With a *RefusedError it has ended already.
	StartMigration(context.Context, MigrationRequest) error
	// RecoverMigration connects the post-copy under way anew, and returns when that is done or has failed.
	RecoverMigration(context.Context, RecoverRequest) error
	// CancelMigration asks for the end of the migration, also during StartMigration's
	// preflight, and returns. It fails past the point of no return.
	CancelMigration(context.Context) error
	ResolveMigration(context.Context, Decision) error
}

// RefusedError is a migration that ended in its preflight, refused or cancelled. The client is told the Result, for
// encoding/json, beside the cause: nothing goes over the stream of a migration that never began.
type RefusedError struct {
	Cause  error
	Result any
}

func (e *RefusedError) Error() string { return e.Cause.Error() }
func (e *RefusedError) Unwrap() error { return e.Cause }

// Session is the one door to a Controller: for the Server, and for the command line's own
// start and stop. It serialises clients and keeps the Lifecycle. Safe for concurrent use.
type Session struct {
	ctrl Controller
	turn chan struct{} // capacity 1; who has put its token in runs the one operation

	mu   sync.Mutex // taken with or without the turn, never held across a Controller call
	life Lifecycle
	feed *feed // the latest migration's; nil before the first
}

// NewSession starts in NotStarted, or in Incoming for a destination.
func NewSession(ctrl Controller, incoming bool) *Session {
	s := &Session{ctrl: ctrl, turn: make(chan struct{}, 1), life: Lifecycle{Phase: NotStarted}}
	if incoming {
		s.life.Phase = Incoming
		s.feed = newFeed()
	}
	return s
}

// Lifecycle returns the present one.
func (s *Session) Lifecycle() Lifecycle {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.life
}

// SetMachineConfig validates and sets the machine's shape.
func (s *Session) SetMachineConfig(ctx context.Context, c MachineConfig) error {
	return s.do(ctx, Configure, func(context.Context) error { return s.setMachineConfig(c) })
}

// PatchMachineConfig changes what the patch names; reading and writing are one operation.
func (s *Session) PatchMachineConfig(ctx context.Context, p MachineConfigPatch) error {
	if p == (MachineConfigPatch{}) {
		return errors.New("the patch is empty: name at least one field")
	}
	return s.do(ctx, Configure, func(context.Context) error {
		return s.setMachineConfig(p.Apply(s.ctrl.MachineConfig()))
	})
}

func (s *Session) setMachineConfig(c MachineConfig) error {
	if err := c.Validate(); err != nil {
		return err
	}
	return s.ctrl.SetMachineConfig(c)
}

// SetBootSource validates and sets what is booted.
func (s *Session) SetBootSource(ctx context.Context, b BootSource) error {
	if err := b.Validate(); err != nil {
		return err
	}
	return s.do(ctx, Configure, func(context.Context) error { return s.ctrl.SetBootSource(b) })
}

// SetLogger validates and sets where logs go.
func (s *Session) SetLogger(ctx context.Context, l LoggerConfig) error {
	if err := l.Validate(); err != nil {
		return err
	}
	return s.do(ctx, Configure, func(context.Context) error { return s.ctrl.SetLogger(l) })
}

// Start boots the guest.
func (s *Session) Start(ctx context.Context) error { return s.do(ctx, Start, s.ctrl.Start) }

// Pause stops all vCPUs; pausing what is paused succeeds.
func (s *Session) Pause(ctx context.Context) error { return s.do(ctx, Pause, s.ctrl.Pause) }

// Resume lets them run; resuming what runs succeeds.
func (s *Session) Resume(ctx context.Context) error { return s.do(ctx, Resume, s.ctrl.Resume) }

// Stop ends the VMM cleanly.
func (s *Session) Stop(ctx context.Context) error {
	err := s.do(ctx, Stop, s.ctrl.Stop)
	var conflict *ConflictError
	if errors.As(err, &conflict) && conflict.Phase == Serving {
		if n := s.ctrl.MemoryUnderWay(); n != 0 {
			return fmt.Errorf("%w: %s of its memory would be lost", err, mebibytes(n))
		}
	}
	return err
}

// mebibytes rounds up: what is left is never nothing.
func mebibytes(n uint64) string { return fmt.Sprintf("%d MiB", (n+1<<20-1)>>20) }

// RecoverMigration connects a post-copy anew whose connection was lost.
func (s *Session) RecoverMigration(ctx context.Context, r RecoverRequest) error {
	if err := r.Validate(); err != nil {
		return err
	}
	return s.do(ctx, Recover, func(ctx context.Context) error { return s.ctrl.RecoverMigration(ctx, r) })
}

// ResolveMigration ends a doubt.
func (s *Session) ResolveMigration(ctx context.Context, d Decision) error {
	event, err := d.event()
	if err != nil {
		return err
	}
	return s.do(ctx, event, func(ctx context.Context) error { return s.ctrl.ResolveMigration(ctx, d) })
}

// StartMigration returns once the preflight has passed, or with its refusal.
func (s *Session) StartMigration(ctx context.Context, r MigrationRequest) error {
	if err := r.Validate(); err != nil {
		return err
	}
	if err := s.acquire(ctx, Migrate); err != nil {
		return err
	}
	defer s.release()
	if p := s.Lifecycle().Phase; p == Running || p == Paused {
		if n := s.ctrl.MemoryUnderWay(); n != 0 {
			return fmt.Errorf("cannot migrate: memory is still arriving: %s to come", mebibytes(n))
		}
	}
	// The phase is entered before the call, because its end may be reported before the
	// call returns, and so that a cancel finds it during a preflight that hangs.
	s.mu.Lock()
	next, err := s.life.Step(Migrate)
	if err != nil {
		s.mu.Unlock()
		return err
	}
	s.life = next
	f := newFeed()
	s.feed = f
	s.mu.Unlock()

	ctx, cancel := operationContext(ctx)
	defer cancel()
	err = s.ctrl.StartMigration(ctx, r)
	if err == nil {
		return nil
	}
	s.mu.Lock()
	if !f.isFinal() && s.life == next {
		s.life, _ = s.life.Step(GuestKept) // legal: the phase is Migrating
	}
	s.mu.Unlock()
	f.publish(MigrationEvent{Final: true, Fault: err.Error()})
	return err
}

// CancelMigration returns when the guest is back at the source, or with the reason why it is
// not. It doesn't wait for its turn: StartMigration may hold it.
func (s *Session) CancelMigration(ctx context.Context) error {
	s.mu.Lock()
	_, err := s.life.Step(Cancel)
	f := s.feed
	s.mu.Unlock()
	if err != nil {
		return err
	}
	opCtx, cancel := operationContext(ctx)
	defer cancel()
	if err := s.ctrl.CancelMigration(opCtx); err != nil {
		return err
	}
	select {
	case <-f.ended:
	case <-f.left:
		return errTooLate
	case <-opCtx.Done():
		return errors.New("the cancel was passed on, but the migration has not ended yet: watch its progress")
	}
	if p := s.Lifecycle().Phase; p == Ended || p == InDoubt {
		return fmt.Errorf("too late to cancel: the machine here is %s", p)
	}
	return nil
}

var errTooLate = errors.New("too late to cancel: " + leftText)

// MigrationProgress publishes a picture of a migration that runs: a value for encoding/json.
// It never blocks on a reader.
func (s *Session) MigrationProgress(progress any) { s.currentFeed().publish(event(progress, false)) }

// MigrationEnded reports the outcome of a migration (GuestKept, GuestMoved, GuestKeptAway, GuestInDoubt,
// GuestArrived or GuestArrivedPaused) with its result for the stream. An
// outcome that does not fit the phase is a *ConflictError; the stream ends all the same.
func (s *Session) MigrationEnded(outcome Event, result any) error {
	if !outcome.isReport() || outcome == GuestEnded {
		return fmt.Errorf("%s is not the outcome of a migration", outcome)
	}
	f := s.currentFeed()
	s.mu.Lock()
	next, err := s.life.Step(outcome)
	if err == nil {
		s.life = next
	}
	s.mu.Unlock()
	// The phase first: who has read the result must find the machine in its new phase.
	f.publish(event(result, true))
	return err
}

// StandbyEnded reports what became of a guest that was kept: GuestMoved, GuestArrived or GuestArrivedPaused.
// The result of its migration was told.
func (s *Session) StandbyEnded(outcome Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next, err := s.life.Step(outcome)
	if err == nil {
		s.life = next
	}
	return err
}

// GuestLeft reports that the guest runs at the destination and its memory follows. The migration goes on, until MigrationEnded. If
// its stream has ended already, with a doubt, another one begins.
func (s *Session) GuestLeft() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if next, err := s.life.Step(GuestLeft); err == nil {
		s.life = next
	}
	if s.feed == nil || s.feed.isFinal() {
		s.feed = newFeed()
	}
	f := s.feed
	f.leaving.Do(func() { close(f.left) })
}

// Arriving is the stream of a migration whose guest is here and whose memory follows it.
type Arriving struct{ feed *feed }

// GuestArrived reports the guest of such a migration: outcome is GuestArrived or GuestArrivedPaused. An outcome that does not fit
// the phase is a *ConflictError; the stream is there all the same.
func (s *Session) GuestArrived(outcome Event, progress any) (*Arriving, error) {
	a := &Arriving{s.currentFeed()}
	s.mu.Lock()
	next, err := s.life.Step(outcome)
	if err == nil {
		s.life = next
	}
	s.mu.Unlock()
	a.Progress(progress)
	return a, err
}

// Progress publishes a picture of it.
func (a *Arriving) Progress(progress any) { a.feed.publish(event(progress, false)) }

// Ended publishes the result: all memory is here, or never will be.
func (a *Arriving) Ended(result any) { a.feed.publish(event(result, true)) }

// AwaitResultTold returns when somebody has been given the result of the latest migration, or ctx
// ends. A process that ends because its guest has moved waits so for the client that asked for it:
// a fast migration is over before that client, answered by PUT, reads the stream.
func (s *Session) AwaitResultTold(ctx context.Context) {
	f := s.watch()
	if f == nil {
		return
	}
	select {
	case <-f.told:
	case <-ctx.Done():
	}
}

// GuestEnded reports that the guest powered itself off or died.
func (s *Session) GuestEnded() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.life, _ = s.life.Step(GuestEnded) // legal in every phase
}

// currentFeed returns the feed to publish to.
func (s *Session) currentFeed() *feed {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.feed == nil {
		s.feed = newFeed()
	}
	return s.feed
}

// watch returns the feed to read, or nil before the first migration.
func (s *Session) watch() *feed {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.feed
}

// do runs op when its turn comes, if the phase allows e then. ctx bounds the wait only: an
// operation that has begun runs to its end, since a machine half paused is what a client that
// hangs up must not be able to make.
func (s *Session) do(ctx context.Context, e Event, op func(context.Context) error) error {
	if err := s.acquire(ctx, e); err != nil {
		return err
	}
	defer s.release()
	before := s.Lifecycle()
	after, err := before.Step(e)
	if errors.Is(err, errAlready) {
		return nil
	}
	if err != nil {
		return err
	}
	ctx, cancel := operationContext(ctx)
	defer cancel()
	if err := op(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life == before { // else a report came during op (a guest may end as soon as it starts): it is newer
		s.life = after
	}
	return nil
}

func (s *Session) acquire(ctx context.Context, e Event) error {
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("cannot %s: another operation is still under way: %w", e, ctx.Err())
	}
}

func (s *Session) release() { <-s.turn }

func operationContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), OperationTimeout)
}

// event wraps a migration's own picture. What can't be encoded is reported in its place.
func event(v any, final bool) MigrationEvent {
	data, err := json.Marshal(v)
	if err != nil {
		return MigrationEvent{Final: final, Fault: fmt.Sprintf("encode migration event: %v", err)}
	}
	return MigrationEvent{Final: final, Data: data}
}
