package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fineline-vmm/fineline/migration"
	"github.com/fineline-vmm/fineline/migration/wire"
	"github.com/fineline-vmm/fineline/vmm/api"
)

// ErrDetached: nobody follows the migration any more, which goes on.
var ErrDetached = errors.New("the guest runs at the destination and its memory follows it, also without this command: " +
	"`fineline status` tells how far it is")

// ErrUntold: what became of the migration was not heard, or not waited for.
var ErrUntold = errors.New("the VMM was asked to cancel and has not said yet what came of it: `fineline status` tells, here and at the destination")

// cancelPatience is how long a cancel may take until nobody waits for what comes of it. A VMM that lives answers within
// api.OperationTimeout; one that hangs never does.
const cancelPatience = api.OperationTimeout + 10*time.Second

// Migrate starts a migration of the machine behind client and follows it to its end; show
// is told of its progress. The result also tells of a migration that failed: look at its
// Status. It is nil when it is not known what became of the guest. When ctx ends the migration is cancelled, and Migrate waits
// for what comes of that, but not for ever, nor longer than until enough is closed (nil: never): then the error is ErrUntold.
// When it is too late for a cancel, since the guest has left ahead of its memory, the error is ErrDetached. A migration that
// the VMM or the destination refused has a result beside the error, which says so.
func Migrate(ctx context.Context, enough <-chan struct{}, client *api.Client, r api.MigrationRequest, show func(migration.Progress)) (*migration.Result, error) {
	return migrate(ctx, enough, cancelPatience, client, r, show)
}

func migrate(ctx context.Context, enough <-chan struct{}, patience time.Duration, client *api.Client, r api.MigrationRequest,
	show func(migration.Progress),
) (*migration.Result, error) {
	if err := ctx.Err(); err != nil {
		return Unheard(migration.StatusCancelled, r, err), err
	}
	// A request that is hung up leaves its migration under way, so none is: it is cancelled.
	lasting, detach := context.WithCancelCause(context.WithoutCancel(ctx))
	defer detach(nil)
	cancel := func() {
		if client.CancelMigration(lasting) == nil {
			return
		}
		// Too late, or done: the stream tells, if it is to end soon.
		if info, err := client.Info(lasting); err == nil && info.Phase == api.Serving.String() {
			detach(ErrDetached)
		}
	}
	defer context.AfterFunc(ctx, cancel)()
	defer context.AfterFunc(ctx, func() {
		select {
		case <-enough:
		case <-time.After(patience):
		case <-lasting.Done():
		}
		detach(ErrUntold)
	})()
	if err := client.StartMigration(lasting, r); err != nil {
		if lasting.Err() != nil {
			return nil, context.Cause(lasting)
		}
		return refusal(r, err), err
	}
	if ctx.Err() != nil {
		cancel() // the first one may have come before the migration
	}
	return Follow(lasting, client, show)
}

// refusal is the result of a migration that was refused before anything was sent, the VMM's own if it has begun it; nil if it was
// not the VMM that said so.
func refusal(r api.MigrationRequest, err error) *migration.Result {
	fault := (*api.Fault)(nil)
	if !errors.As(err, &fault) {
		return nil
	}
	if told := new(migration.Result); fault.Result != nil && json.Unmarshal(fault.Result, told) == nil {
		return told
	}
	return Unheard(migration.StatusFailed, r, err)
}

// Unheard is what is known of a migration whose result no VMM has told: how it was asked for, and why there is none.
func Unheard(status migration.Status, r api.MigrationRequest, err error) *migration.Result {
	result := &migration.Result{
		Status: status, Mode: strings.ToLower(r.MemoryMode), Granularity: r.Granularity,
		Phases: []migration.PhaseTime{}, Rounds: []migration.Round{}, Error: err.Error(),
	}
	if r.Local {
		result.Mode, result.Granularity = string(wire.ModeLocal), "none"
	}
	return result
}

// Follow is told of the progress of the migration that is under way, or was the last, and of its result.
func Follow(ctx context.Context, client *api.Client, show func(migration.Progress)) (*migration.Result, error) {
	for e, err := range client.MigrationEvents(ctx) {
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err != nil:
			return nil, err
		case e.Fault != "":
			return nil, errors.New(e.Fault)
		case e.Final:
			result := new(migration.Result)
			if err := json.Unmarshal(e.Data, result); err != nil {
				return nil, fmt.Errorf("result of the migration: %w", err)
			}
			return result, nil
		}
		var p migration.Progress
		if err := json.Unmarshal(e.Data, &p); err != nil {
			return nil, fmt.Errorf("progress of the migration: %w", err)
		}
		show(p)
	}
	return nil, api.ErrStreamCut
}

// Migrate is the function Migrate for this child.
func (v *VMM) Migrate(ctx context.Context, r api.MigrationRequest, show func(migration.Progress)) (*migration.Result, error) {
	return Migrate(ctx, nil, v.API, r, show)
}
