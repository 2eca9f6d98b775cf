package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration"
	"github.com/fineline-vmm/fineline/migration/wire"
	"github.com/fineline-vmm/fineline/vmm"
	"github.com/fineline-vmm/fineline/vmm/api"
)

// outgoing is one migration of this process's machine to another.
type outgoing struct {
	cancel context.CancelCauseFunc
	// settled gets nil when the preflight has passed, or the refusal. Capacity 1:
	// it is filled once and read once.
	settled chan error
	once    sync.Once
	// ended is closed when the outcome was reported to the session; over, when nothing
	// is in doubt any more either.
	ended, over chan struct{}
	lost        error // the guest died with its destination; good when over is closed
	// verdicts takes a human's decision while the outcome is in doubt; certain is closed when it is not any more.
	verdicts chan *verdict
	certain  chan struct{}

	// Post-copy. left is closed when the guest runs at the destination and its memory follows; leaving closes it.
	left     chan struct{}
	leaving  sync.Once
	recovers chan migration.Recovery
	giveUp   chan struct{} // closed to end it though memory is lost then
	latest   atomic.Pointer[migration.Progress]
	result   atomic.Pointer[migration.Result] // once there is one

	// standby keeps the guest; nil: nobody asked for that.
	standby *migration.Standby
	stands  atomic.Bool        // the guest has moved and is kept; good when ended is closed
	release context.CancelFunc // ends that
}

func newOutgoing(cancel context.CancelCauseFunc) *outgoing {
	return &outgoing{
		cancel: cancel, settled: make(chan error, 1), verdicts: make(chan *verdict), certain: make(chan struct{}),
		ended: make(chan struct{}), over: make(chan struct{}),
		left: make(chan struct{}), recovers: make(chan migration.Recovery), giveUp: make(chan struct{}),
	}
}

// settle answers the request that started the migration. It reports whether this
// was the answer: only the first one is.
func (o *outgoing) settle(err error) (answered bool) {
	o.once.Do(func() {
		o.settled <- err
		answered = true
	})
	return answered
}

// sourceMachine is a vmm.Machine as the migration sees it.
type sourceMachine struct {
	m       *vmm.Machine
	running bool // before the migration; the destination goes on in the same way
}

var (
	_ migration.Source         = (*sourceMachine)(nil)
	_ migration.Throttler      = (*sourceMachine)(nil)
	_ migration.RestoreToucher = (*sourceMachine)(nil)
	_ migration.CPUMeter       = (*sourceMachine)(nil)
	_ migration.Rewinder       = (*sourceMachine)(nil)
)

// What vmm saves is what the wire carries: this does not compile if their caps differ.
var _ = [1]struct{}{}[vmm.MaxSavedBytes-wire.MaxStateBytes]

func (s *sourceMachine) Description() ([]byte, error)    { return s.m.Description() }
func (s *sourceMachine) Memory() *memory.Guest           { return s.m.Memory() }
func (s *sourceMachine) DirtySource() memory.DirtySource { return s.m.DirtySource() }
func (s *sourceMachine) Pause() error                    { return s.m.Pause() }
func (s *sourceMachine) SaveState() ([]byte, error)      { return s.m.Save(s.running) }
func (s *sourceMachine) Release()                        { s.m.HandOver() }
func (s *sourceMachine) RestorePages(state []byte) ([]memory.GPA, error) {
	return vmm.RestorePages(state)
}
func (s *sourceMachine) CPUTime() (time.Duration, error) { return s.m.OwnCPUTime() }
func (s *sourceMachine) Throttle(share float64) error    { return s.m.Throttle(share) }
func (s *sourceMachine) Resume() error {
	if !s.running {
		return nil
	}
	return s.m.Resume()
}

// StartMigration returns when the destination has accepted the machine, or with
// the refusal.
func (i *instance) StartMigration(ctx context.Context, r api.MigrationRequest) error {
	to, opts, err := i.sendOptions(r)
	if err != nil {
		return err
	}
	standby, err := requestedStandby(r)
	if err != nil {
		return err
	}
	// A migration outlives the request that started it.
	sendCtx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	o := newOutgoing(cancel)
	standCtx, release := context.WithCancel(context.Background())
	o.standby, o.release = standby, release
	opts.Standby, opts.Accepted = standby, i.endCheckpoints
	opts.Recover, opts.GiveUp = o.recovers, o.giveUp
	opts.Progress = func(p migration.Progress) { i.progress(o, p) }
	i.mu.Lock()
	i.out = o
	m := i.machine
	i.mu.Unlock()
	source := &sourceMachine{m: m, running: m.Status() == vmm.Running}
	go func() {
		defer close(o.over)
		defer cancel(nil)
		defer release()
		result, err := migration.Send(sendCtx, source, to, opts)
		o.stands.Store(err == nil && o.standby != nil)
		i.sent(o, source, result, err)
		close(o.ended)
		if doubt := (*migration.InDoubtError)(nil); errors.As(err, &doubt) {
			err = i.settleDoubt(o, source, doubt)
		}
		if o.standby != nil && err == nil {
			o.stands.Store(true) // also out of a doubt
			err = i.standBy(standCtx, o, source)
		}
		if errors.Is(err, migration.ErrDestinationDied) {
			o.lost = err
		}
	}()
	defer context.AfterFunc(ctx, func() {
		cancel(fmt.Errorf("the destination has not accepted the machine in %v", api.OperationTimeout))
	})()
	return <-o.settled
}

// progress takes a report on the migration under way.
func (i *instance) progress(o *outgoing, p migration.Progress) {
	o.latest.Store(&p)
	if p.Phase != migration.PhasePreflight {
		o.settle(nil)
	}
	if p.Phase == migration.PhasePostcopy || p.Phase == migration.PhaseReconnecting {
		o.leaving.Do(func() {
			i.session.GuestLeft()
			close(o.left)
		})
	}
	i.session.MigrationProgress(p)
}

// sendOptions turns the request into what package migration takes.
func (i *instance) sendOptions(r api.MigrationRequest) (to migration.Address, opts migration.SendOptions, err error) {
	if to, err = migration.ParseAddress(r.DestinationURL); err != nil {
		return to, opts, err
	}
	files := requestedTLS(r)
	if err := files.Check(to); err != nil {
		return to, opts, err
	}
	security, err := files.Load(logrus.StandardLogger())
	if err != nil {
		return to, opts, err
	}
	j, err := i.openJournal()
	if err != nil {
		return to, opts, err
	}
	return to, migration.SendOptions{
		Mode:                  requestedMode(r),
		MachineID:             i.machineID,
		TLS:                   security,
		Journal:               j,
		Build:                 version(),
		Granularity:           migration.Granularity(r.Granularity),
		Baseline:              migration.Baseline(r.Baseline),
		BaselineBudgetBytes:   uint64(r.BaselineBudgetBytes),
		Streams:               r.Connections,
		Compression:           migration.Compression(r.Compression),
		Rule:                  migration.Rule{MaxDowntime: time.Duration(r.DowntimeMS) * time.Millisecond},
		MaxBandwidthBytesPerS: uint64(r.MaxBandwidthBytesPerSecond),
		Timeout:               time.Duration(r.TimeoutS) * time.Second,
		TimeoutStrategy:       migration.TimeoutStrategy(strings.ToLower(r.TimeoutStrategy)),
	}, nil
}

// sent reports how a migration ended.
func (i *instance) sent(o *outgoing, source *sourceMachine, result *migration.Result, err error) {
	outcome := i.outcomeOf(source, result, err)
	if outcome == api.GuestKept && result.Status == migration.StatusFailed {
		err = withNextStep(err)
		result.Error = err.Error()
	}
	o.result.Store(result)
	if outcome == api.GuestKept && o.settle(&api.RefusedError{Cause: err, Result: result}) {
		// A refusal answers the request that started the migration; the session
		// tells it to the readers of the stream.
		return
	}
	o.settle(nil)
	if err != nil {
		logrus.WithError(err).Warn("migration")
	}
	if err := i.session.MigrationEnded(outcome, result); err != nil {
		logrus.WithError(err).Debug("the machine ended during its migration")
	}
}

// withNextStep adds the way on to why a migration failed that left the guest here, where that does not say it: whatever else is
// wrong has its own. A destination that had accepted the machine has ended, one that had not waits.
func withNextStep(err error) error {
	switch {
	case errors.Is(err, migration.ErrConnectionLost), errors.Is(err, migration.ErrPeerSilent),
		errors.Is(err, wire.ErrProtocol), errors.As(err, new(*migration.AbortedError)):
		return fmt.Errorf("%w; the guest is still here: start the destination again if it has ended, and migrate again", err)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT): // of the journal: nothing else is written
		return fmt.Errorf("%w; the guest is still here: make room, and migrate again", err)
	}
	return err
}

// outcomeOf is where the guest is after a migration that ended with err.
func (i *instance) outcomeOf(source *sourceMachine, result *migration.Result, err error) api.Event {
	var doubt *migration.InDoubtError
	var resumed *migration.ResumedError
	switch {
	case err == nil && result.KeepSource:
		return api.GuestKeptAway
	case errors.As(err, &resumed):
		return source.resumed()
	case errors.As(err, &doubt):
		return api.GuestInDoubt
	case err == nil, errors.Is(err, migration.ErrDestinationDied), errors.Is(err, migration.ErrNotStarted), errors.Is(err, migration.ErrGiveUp):
		return api.GuestMoved
	default:
		return api.GuestKept
	}
}

// resultTimeout bounds the wait for a client that reads how a migration ended.
const resultTimeout = time.Second

// endMigration cancels what can be cancelled and waits until the outcome is told,
// so that whoever reads the stream gets its last line. Its error says that a guest that has left is lost, with its destination
// or with memory that was here.
func (i *instance) endMigration() (err error) {
	i.mu.Lock()
	o, in := i.out, i.in
	i.mu.Unlock()
	if in != nil {
		in.listener.DropCheckpoints() // one that is under way would have whoever stops the guest wait for a slow source
	}
	if o != nil {
		o.cancel(nil) // means nothing once the guest has left
		o.release()
		if !o.stands.Load() {
			err = i.awaitServed(o)
		}
		if o.stands.Load() {
			<-o.over
		}
	}
	if m := i.current(); m != nil && m.Outcome().Kind == vmm.EndedByMigration {
		<-o.over // what settled a doubt is still writing it down
		ctx, cancel := context.WithTimeout(context.Background(), resultTimeout)
		defer cancel()
		i.session.AwaitResultTold(ctx)
		if err == nil {
			err = o.lost
		}
	}
	return err
}

// CancelMigration asks for the end of the migration under way.
func (i *instance) CancelMigration(context.Context) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.out == nil {
		return errors.New("no migration is in progress")
	}
	if p := i.out.latest.Load(); p != nil && p.Phase == migration.PhaseSettling && i.out.result.Load() == nil {
		return errors.New("too late to cancel: the commit is sent and the connection lost; the destination is asked whether it has the guest")
	}
	// If the guest has left meanwhile this does nothing, and the session says so.
	i.out.cancel(nil)
	return nil
}
