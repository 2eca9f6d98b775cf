package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// info is the part of query-migrate's answer that is used.
type info struct {
	Status      string  `json:"status"`
	ErrorDesc   string  `json:"error-desc"`
	TotalTimeMS float64 `json:"total-time"`
	DowntimeMS  float64 `json:"downtime"`
	RAM         struct {
		Transferred uint64 `json:"transferred"`
		Normal      uint64 `json:"normal"` // pages with content
		Rounds      int    `json:"dirty-sync-count"`
		Requests    uint64 `json:"postcopy-requests"`
	} `json:"ram"`
	XBZRLE struct {
		Pages uint64 `json:"pages"` // as differences
	} `json:"xbzrle-cache"`
}

// pages is how many were sent with content, whole or as a difference.
func (i *info) pages() uint64 { return i.RAM.Normal + i.XBZRLE.Pages }

// follower watches a migration at its source.
type follower struct {
	source     *Monitor
	options    MigrationOptions
	result     *Migration
	stopped    time.Time
	completed  time.Time
	sentBefore uint64 // bytes, when the guest stopped

	passAt   time.Time // the pass under way
	passFrom info
	firstAt  time.Time
}

func (f *follower) follow(ctx context.Context) error {
	errImpatient := errors.New("patience is over")
	hurried, cancel := context.WithTimeoutCause(ctx, f.options.Patience, errImpatient)
	defer cancel()
	for {
		e, err := f.source.Await(hurried)
		if errors.Is(err, errImpatient) {
			f.result.Converged = false
			hurried = ctx
			if err = f.allowDowntime(ctx, anyDowntimeMS); err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		done, err := f.event(ctx, e)
		if done || err != nil {
			return err
		}
	}
}

func (f *follower) allowDowntime(ctx context.Context, ms int64) error {
	return f.source.Execute(ctx, "migrate-set-parameters", map[string]any{"downtime-limit": ms}, nil)
}

func (f *follower) event(ctx context.Context, e Event) (done bool, err error) {
	var data struct {
		Status string `json:"status"`
		Pass   int    `json:"pass"`
	}
	switch e.Name {
	case "STOP":
		f.stopped = e.Time()
		return false, nil
	case "MIGRATION", "MIGRATION_PASS":
		if err := json.Unmarshal(e.Data, &data); err != nil {
			return false, fmt.Errorf("QMP event %s: %w", e.Name, err)
		}
	}
	switch {
	case e.Name == "MIGRATION_PASS":
		return false, f.pass(ctx, e.Time(), data.Pass)
	case e.Name == "MIGRATION":
		return f.status(ctx, e.Time(), data.Status)
	}
	return false, nil
}

func (f *follower) status(ctx context.Context, at time.Time, status string) (done bool, err error) {
	switch status {
	case "completed":
		if f.stopped.IsZero() {
			return true, errors.New("QEMU completed a migration without stopping the guest")
		}
		f.completed = at
		return true, nil
	case "failed", "cancelled":
		i, err := query(ctx, f.source)
		return true, errors.Join(fmt.Errorf("QEMU's migration %s: %s", status, i.ErrorDesc), err)
	case "postcopy-paused":
		return true, errors.New("QEMU's post-copy has lost its connection")
	case "pre-switchover":
		i, err := query(ctx, f.source)
		if err != nil {
			return true, err
		}
		f.sentBefore = i.RAM.Transferred
		return false, f.source.Execute(ctx, "migrate-continue", map[string]any{"state": "pre-switchover"}, nil)
	}
	return false, nil
}

// pass is told that pass number n, from 1, has begun.
func (f *follower) pass(ctx context.Context, at time.Time, n int) error {
	if err := f.warm(ctx, n); err != nil {
		return err
	}
	if !f.options.FollowRounds {
		return nil
	}
	i, err := query(ctx, f.source)
	if err != nil {
		return err
	}
	f.endPass(at, i)
	if f.firstAt.IsZero() {
		f.firstAt = at
	}
	f.passAt, f.passFrom = at, i
	return nil
}

// warm lets the second pass run at full speed, and ends the holding of a migration whose cache is warm.
func (f *follower) warm(ctx context.Context, pass int) error {
	w := f.options.Setting.WarmPasses
	switch {
	case w == 0:
		return nil
	case pass == 2:
		return f.source.Execute(ctx, "migrate-set-parameters", map[string]any{"max-bandwidth": f.options.bandwidth()}, nil)
	case pass == w+1 && f.result.Converged:
		return f.allowDowntime(ctx, f.options.downtimeMS())
	}
	return nil
}

// endPass notes the pass under way, if any, which ended at an instant with these figures.
func (f *follower) endPass(at time.Time, i info) {
	if f.passAt.IsZero() {
		return
	}
	f.result.Passes = append(f.result.Passes, Pass{
		StartMS: milliseconds(f.passAt.Sub(f.firstAt)), MS: milliseconds(at.Sub(f.passAt)),
		Bytes: i.RAM.Transferred - f.passFrom.RAM.Transferred, Pages: i.pages() - f.passFrom.pages(),
		Paused: !f.stopped.IsZero() && !f.passAt.Before(f.stopped),
	})
}

func query(ctx context.Context, m *Monitor) (i info, err error) {
	err = m.Execute(ctx, "query-migrate", nil, &i)
	return i, err
}

// queryTimes asks until the times are there: QEMU sends the event before it has computed them.
func queryTimes(ctx context.Context, m *Monitor) (i info, err error) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		if i, err = query(ctx, m); err != nil || i.TotalTimeMS > 0 {
			return i, err
		}
		select {
		case <-ctx.Done():
			return i, context.Cause(ctx)
		case <-tick.C:
		}
	}
}
