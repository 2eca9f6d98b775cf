package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/fineline-vmm/fineline/migration"
	"github.com/fineline-vmm/fineline/vmm/api"
)

// requestedStandby is what keeps the source, if that is asked for, or nil.
func requestedStandby(r api.MigrationRequest) (*migration.Standby, error) {
	if !r.KeepSource {
		return nil, nil
	}
	return migration.NewStandby(time.Duration(r.CheckpointMS) * time.Millisecond)
}

// RestoreState puts the machine back to a checkpoint of the guest that has moved.
func (s *sourceMachine) RestoreState(sealed []byte) (err error) {
	s.running, err = s.m.Restore(sealed)
	return err
}

// resumed is how the guest goes on that came back.
func (s *sourceMachine) resumed() api.Event {
	if s.running {
		return api.GuestArrived
	}
	return api.GuestArrivedPaused
}

// standBy keeps the guest that has moved until it is given up, or goes on here. It returns what Wait has.
func (i *instance) standBy(ctx context.Context, o *outgoing, source *sourceMachine) error {
	err := o.standby.Wait(ctx)
	outcome := api.GuestMoved
	switch resumed := (*migration.ResumedError)(nil); {
	case errors.As(err, &resumed): // which has been logged
		outcome = source.resumed()
	case err != nil:
		logrus.WithError(err).Warn("migration")
	}
	if err != nil {
		o.result.Store(afterStandby(*o.result.Load(), err))
	}
	if err := i.session.StandbyEnded(outcome); err != nil {
		logrus.WithError(err).Debug("the machine ended while its guest was kept")
	}
	return err
}

// afterStandby is the result of a migration whose guest was kept, and did not stay the destination's.
func afterStandby(moved migration.Result, err error) *migration.Result {
	moved.Status, moved.Error, moved.KeepSource = migration.StatusFailed, err.Error(), false
	if resumed := (*migration.ResumedError)(nil); errors.As(err, &resumed) {
		moved.Status, moved.Checkpoints = migration.StatusResumed, resumed.Checkpoint
	}
	return &moved
}

// keeps reports whether a guest that has moved is kept now.
func (o *outgoing) keeps() bool {
	if o.standby == nil {
		return false
	}
	select {
	case <-o.over:
		return false
	default:
		return true
	}
}

// decideStandby carries out what a human says of the destination.
func (o *outgoing) decideStandby(d migration.Decision) error {
	switch {
	case !o.keeps():
		return migration.ErrStandbyOver
	case d == migration.GuestIsHere:
		return o.standby.TakeOver()
	}
	return o.standby.Release()
}

// endCheckpoints ends the standby of the process that this guest came from: its checkpoints would
// be of a guest that has moved on.
func (i *instance) endCheckpoints() {
	i.mu.Lock()
	in := i.in
	i.mu.Unlock()
	if in != nil {
		in.listener.EndCheckpoints()
	}
}

func standbyOf(s migration.StandbyStatus) *api.Standby {
	if !s.Active {
		return nil
	}
	return &api.Standby{
		Checkpoint: s.Checkpoint, AgeMS: s.AgeMS, IntervalMS: s.IntervalMS, Connected: s.Connected, Doubt: s.Doubt, Bytes: s.Bytes, Pages: s.Pages, Lines: s.Lines,
		PauseUS: s.PauseUS, MaxPauseUS: s.MaxPauseUS, TotalBytes: s.TotalBytes, Missed: s.Missed,
	}
}

// standbyLine says what could be gone on from.
func standbyLine(s *api.Standby) string {
	line := fmt.Sprintf("checkpoint %d of a guest that has moved, %.1f s old", s.Checkpoint, s.AgeMS/1000)
	if s.IntervalMS > 0 {
		line += fmt.Sprintf(", %.1f s after the one before", s.IntervalMS/1000)
	}
	switch {
	case s.Doubt != "":
		line += "; in doubt: " + s.Doubt
	case !s.Connected:
		line += "; the connection for checkpoints is lost"
	}
	return line
}
