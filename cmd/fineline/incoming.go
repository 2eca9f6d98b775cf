package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/sirupsen/logrus"
	"golang.org/x/time/rate"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/migration"
	"github.com/fineline-vmm/fineline/migration/postcopy"
	"github.com/fineline-vmm/fineline/vmm"
	"github.com/fineline-vmm/fineline/vmm/api"
)

// incoming is the side of a process that waits for a machine.
type incoming struct {
	listener *migration.Listener
	failed   chan error    // gets why no machine came; capacity 1
	over     chan struct{} // closed when no machine is under way any more
	arrival  arrival
}

// listen binds the address and receives one machine in the background.
func (i *instance) listen(ctx context.Context, address string, flags tlsFlags) error {
	at, err := migration.ParseAddress(address)
	if err != nil {
		return usageError{fmt.Errorf("--incoming: %w", err)}
	}
	files, err := flags.files(at)
	if err != nil {
		return usageError{err}
	}
	security, err := files.Load(logrus.StandardLogger())
	if err != nil {
		return err
	}
	j, err := i.openJournal()
	if err != nil {
		return err
	}
	in := &incoming{failed: make(chan error, 1), over: make(chan struct{}), arrival: arrival{lost: make(chan error, 1)}}
	in.listener, err = migration.Listen(ctx, at, migration.ListenOptions{
		Journal: j, Build: version(), TLS: security, InDoubt: i.incomingInDoubt,
		Stalled: in.arrival.stalled, Complete: in.arrival.complete,
	})
	if err != nil {
		return err
	}
	i.mu.Lock()
	i.in = in
	i.mu.Unlock()
	go in.receive(ctx, i)
	return nil
}

// receive takes the first machine that this process accepts. Whatever comes before
// that changes nothing here; a machine that is lost after that is the end, since this
// process was started for it.
func (in *incoming) receive(ctx context.Context, i *instance) {
	defer close(in.over)
	said := rate.Sometimes{First: migration.LogFirst, Interval: migration.LogInterval} // anybody can make it say this
	for {
		t := &targetMachine{i: i}
		received, err := in.listener.Receive(ctx, t)
		discarded := (*migration.DiscardedError)(nil)
		switch {
		case !errors.As(err, &discarded): // it is here, if only paused
			i.received(t, received, err)
			return
		case !discarded.Accepted && ctx.Err() == nil && !errors.Is(err, migration.ErrStopped):
			said.Do(func() { logrus.WithError(discarded.Cause).Warn("no machine came; waiting for another") })
		default:
			in.failed <- err
			return
		}
	}
}

// received takes the machine that has come into care.
func (i *instance) received(t *targetMachine, r *migration.Received, err error) {
	i.mu.Lock()
	i.machineID = r.MachineID
	i.mu.Unlock()
	outcome := api.GuestArrivedPaused
	if i.current() == nil { // it is ours though Run was not reached
		i.adopt(t.m)
	}
	if err != nil {
		logrus.WithError(err).Error("the machine has come and stays paused")
	} else if t.resume {
		outcome = api.GuestArrived
	}
	if err := i.tellArrival(outcome, r); err != nil {
		logrus.WithError(err).Debug("the machine ended as it arrived")
	}
}

// tellArrival reports the machine that has come, with its memory or ahead of it.
func (i *instance) tellArrival(outcome api.Event, r *migration.Received) error {
	i.mu.Lock()
	in := i.in
	i.mu.Unlock()
	if !r.Postcopy {
		in.arrival.whole(r)
		return i.session.MigrationEnded(outcome, r)
	}
	absent := i.current().Memory().Absent
	stream, err := i.session.GuestArrived(outcome, arriving{Received: r, AbsentPages: absent()})
	in.arrival.begin(stream, r, absent)
	return err
}

// incomingInDoubt tells clients that somebody must decide, unless the source comes back.
func (i *instance) incomingInDoubt(cause error) {
	logrus.WithError(cause).Warn("a machine is here and may not run before it is clear that it runs nowhere else: look at the source, and decide: " + migration.HowToDecide)
	if err := i.session.MigrationEnded(api.GuestInDoubt, struct {
		Status string `json:"status"`
		Error  string `json:"error"`
	}{string(migration.StatusInDoubt), cause.Error()}); err != nil {
		logrus.WithError(err).Debug("in doubt")
	}
}

// incomingFailed yields why no machine came; it never does without --incoming.
func (i *instance) incomingFailed() <-chan error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.in == nil {
		return nil
	}
	return i.in.failed
}

// memoryLost yields why memory of the guest that has come will never come; it never does without --incoming.
func (i *instance) memoryLost() <-chan error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.in == nil {
		return nil
	}
	return i.in.arrival.lost
}

// targetMachine builds the machine that arrives.
type targetMachine struct {
	i      *instance
	m      *vmm.Machine
	resume bool // the guest ran at the source
	held   bool // by Pause
}

var (
	_ migration.Target = (*targetMachine)(nil)
	_ migration.Holder = (*targetMachine)(nil)

	_ migration.LineTarget     = (*targetMachine)(nil)
	_ migration.Checkpointer   = (*targetMachine)(nil)
	_ migration.RestoreToucher = (*targetMachine)(nil)
)

// local is what this process was told about machines that may come.
func (t *targetMachine) local() vmm.Config {
	t.i.mu.Lock()
	defer t.i.mu.Unlock()
	return t.i.cfg
}

func (t *targetMachine) Prepare(description []byte) (_ *memory.Guest, err error) {
	if t.m, err = vmm.NewFromDescription(description, t.local()); err != nil {
		return nil, err
	}
	t.sayComing(true)
	return t.m.Memory(), nil
}

// sayComing is for those who ask while a machine is on its way.
func (t *targetMachine) sayComing(coming bool) {
	t.i.mu.Lock()
	defer t.i.mu.Unlock()
	t.i.in.arrival.coming.Store(coming)
}

func (t *targetMachine) HomeMissing(d *memory.Demand) (postcopy.LineMemory, error) {
	if !t.local().HomedMissing {
		return nil, nil
	}
	return t.m.HomeMissing(d)
}

func (t *targetMachine) RestorePages(state []byte) ([]memory.GPA, error) {
	return vmm.RestorePages(state)
}

func (t *targetMachine) RestoreState(sealed []byte) (err error) {
	t.resume, err = t.m.Restore(sealed)
	return err
}

func (t *targetMachine) Run() error {
	t.i.adopt(t.m)
	if !t.resume {
		return nil
	}
	if err := t.m.Resume(); !errors.Is(err, vmm.ErrStopped) {
		return err
	}
	return nil // it came, and this process ends
}

// Pause holds the guest while its memory is out of reach.
func (t *targetMachine) Pause() error {
	t.held = t.m.Status() == vmm.Running
	return t.m.Pause()
}

// Resume lets it go on, unless a user had paused it.
func (t *targetMachine) Resume() error {
	if !t.held {
		return nil
	}
	return t.m.Resume()
}

func (t *targetMachine) DirtySource() memory.DirtySource { return t.m.DirtySource() }

// Checkpoint is between what users do to the machine: vmm sees to that.
func (t *targetMachine) Checkpoint(gather func() error) ([]byte, error) {
	return t.m.Checkpoint(gather)
}

func (t *targetMachine) Discard() {
	t.sayComing(false)
	t.m.HandOver() // what its serial port has not sent yet is the source's to send
	if err := t.m.Close(); err != nil {
		logrus.WithError(err).Warn("the incoming machine could not be freed")
	}
}
