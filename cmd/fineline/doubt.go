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
	defer close(o.certain)
	for {
		why := doubt.Cause
		result, v, err := o.askAgain(doubt.Retry)
		if !errors.As(err, &doubt) {
			o.result.Store(result)
			i.settled(source, result, err)
			return err
		}
		if errors.Is(doubt.Cause, context.Canceled) { // by the word that came, which is not why there is a doubt
			doubt.Cause = why
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
		kept, err := migration.ResolveInDoubt(doubt, v.decision)
		if err == nil {
			o.result.Store(kept)
		}
		v.done <- err
		if err == nil {
			return errSettled
		}
	}
}

// askAgain lets retry ask the destination. A human's word that comes meanwhile cuts that short; it is returned if nothing was
// settled before it, and else answered here, at once: that the guest has left is known long before its memory is there, too.
func (o *outgoing) askAgain(retry func(context.Context) (*migration.Result, error)) (*migration.Result, *verdict, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	type answer struct {
		result *migration.Result
		err    error
	}
	answers := make(chan answer, 1)
	go func() {
		result, err := retry(ctx)
		answers <- answer{result, err}
	}()
	select {
	case a := <-answers:
		return a.result, nil, a.err
	case v := <-o.verdicts:
		cancel()
		select {
		case a := <-answers:
			if errors.As(a.err, new(*migration.InDoubtError)) {
				return a.result, v, a.err
			}
			v.done <- errSettled
			return a.result, nil, a.err
		case <-o.left:
			v.done <- errSettled
			a := <-answers
			return a.result, nil, a.err
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
	return out.decide(ctx, decision)
}

// decide passes a human's decision to whoever settles the doubt, and returns what came of it.
func (o *outgoing) decide(ctx context.Context, d migration.Decision) error {
	v := &verdict{decision: d, done: make(chan error, 1)}
	select {
	case o.verdicts <- v:
	case <-o.left:
		return errSettled
	case <-o.certain:
		return errSettled
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
