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

// doubtPause lies between two attempts to learn what became of a hand-over.
const doubtPause = 5 * time.Second

// verdict is a human's decision and where to report that it was carried out.
type verdict struct {
	decision migration.Decision
	done     chan error // capacity 1
}

var errSettled = errors.New("the doubt has just been settled: look at the machine's status")

// settleDoubt asks the destination again and again, until it answers or somebody
// decides. The machine stays paused meanwhile.
func (i *instance) settleDoubt(o *outgoing, source *sourceMachine, doubt *migration.InDoubtError) error {
	for {
		ctx, cancel := context.WithCancel(context.Background())
		type answer struct {
			result *migration.Result
			err    error
		}
		answers := make(chan answer, 1)
		go func() {
			result, err := doubt.Retry(ctx)
			answers <- answer{result, err}
		}()
		var v *verdict
		var a answer
		select {
		case a = <-answers:
		case v = <-o.verdicts:
			cancel()
			a = <-answers
		}
		cancel()
		if again := (*migration.InDoubtError)(nil); errors.As(a.err, &again) {
			doubt = again
		} else {
			if v != nil {
				v.done <- errSettled
			}
			o.result.Store(a.result)
			i.settled(source, a.result, a.err)
			return a.err
		}
		if v == nil {
			select {
			case v = <-o.verdicts:
			case <-time.After(doubtPause):
				continue
			}
		}
		if v.decision == migration.GuestIsThere {
			return i.giveAway(o, source, doubt, v)
		}
		_, err := migration.ResolveInDoubt(doubt, v.decision)
		v.done <- err
		if err == nil {
			return errSettled
		}
	}
}

// giveAway carries out that the guest is the destination's. If its memory follows, which may take long, whoever said so is
// answered when that begins.
func (i *instance) giveAway(o *outgoing, source *sourceMachine, doubt *migration.InDoubtError, v *verdict) error {
	ended := make(chan error, 1)
	go func() {
		result, err := migration.ResolveInDoubt(doubt, migration.GuestIsThere)
		o.result.Store(result)
		i.settled(source, result, err)
		ended <- err
	}()
	select {
	case <-o.left:
		v.done <- nil
		return <-ended
	case err := <-ended:
		v.done <- err
		return err
	}
}

// settled reports the end of a doubt.
func (i *instance) settled(source *sourceMachine, result *migration.Result, err error) {
	logrus.WithField("status", result.Status).Info("the doubt about the migration is settled")
	if err := i.session.MigrationEnded(i.outcomeOf(source, result, err), result); err != nil {
		logrus.WithError(err).Debug("the machine ended during its migration")
	}
}

// ResolveMigration takes the word of somebody who knows what became of the peer.
func (i *instance) ResolveMigration(ctx context.Context, d api.Decision) error {
	decision := migration.GuestIsHere
	if d == api.DecisionDiscard {
		decision = migration.GuestIsThere
	}
	i.mu.Lock()
	out, in := i.out, i.in
	i.mu.Unlock()
	if out == nil {
		return in.listener.ResolveInDoubt(decision)
	}
	if i.session.Lifecycle().Phase != api.InDoubt {
		return out.decideStandby(decision)
	}
	v := &verdict{decision: decision, done: make(chan error, 1)}
	select {
	case out.verdicts <- v:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-v.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("the decision is taken, and not carried out yet (%w): look at the machine's status", ctx.Err())
	}
}
