package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

const (
	// unlimitedBytesPerS is more than any link here has. QEMU's default is 128 MiB/s.
	unlimitedBytesPerS = 1 << 40
	// anyDowntimeMS is the largest that QEMU takes.
	anyDowntimeMS = 2_000_000
)

// MigrationOptions say how to migrate.
type MigrationOptions struct {
	URI         string // unix:PATH, where the destination is to listen
	MaxDowntime time.Duration
	// Patience is how long the rounds may go on before the downtime goal is given up. QEMU
	// itself would go on for ever.
	Patience time.Duration
	Multifd  bool // pages over two more connections
	// CountDowntime holds the migration at the switch-over to count the bytes after it. It
	// makes DowntimeMS and TotalMS longer.
	CountDowntime bool
}

// Migration is what came of one. Bytes are of RAM: QEMU does not count device state.
type Migration struct {
	TotalMS         float64
	DowntimeMS      float64 // from STOP at the source to RESUME at the destination
	OwnDowntimeMS   float64 // as the source reports it
	BytesSent       uint64
	BytesInDowntime uint64 // with CountDowntime
	Rounds          int
	Converged       bool // the downtime goal was not given up
}

// info is the part of query-migrate's answer that is used.
type info struct {
	Status      string  `json:"status"`
	ErrorDesc   string  `json:"error-desc"`
	TotalTimeMS float64 `json:"total-time"`
	DowntimeMS  float64 `json:"downtime"`
	RAM         struct {
		Transferred uint64 `json:"transferred"`
		Rounds      int    `json:"dirty-sync-count"`
	} `json:"ram"`
}

// Migrate moves the guest of source to destination, which was started with `-incoming
// defer`, and returns when it runs there.
func Migrate(ctx context.Context, source, destination *Monitor, o MigrationOptions) (*Migration, error) {
	if err := prepare(ctx, source, destination, o); err != nil {
		return nil, err
	}
	if err := source.Execute(ctx, "migrate", map[string]any{"uri": o.URI}, nil); err != nil {
		return nil, err
	}
	f := follower{source: source, result: &Migration{Converged: true}}
	if err := f.follow(ctx, o.Patience); err != nil {
		return nil, err
	}
	resumed, err := awaitResume(ctx, destination)
	if err != nil {
		return nil, err
	}
	i, err := queryTimes(ctx, source)
	if err != nil {
		return nil, err
	}
	r := f.result
	r.TotalMS, r.OwnDowntimeMS = i.TotalTimeMS, i.DowntimeMS
	r.DowntimeMS = float64(resumed.Sub(f.stopped)) / float64(time.Millisecond)
	r.BytesSent, r.Rounds = i.RAM.Transferred, i.RAM.Rounds
	if o.CountDowntime {
		r.BytesInDowntime = r.BytesSent - f.sentBefore
	}
	return r, nil
}

// prepare sets both ends up and lets the destination listen.
func prepare(ctx context.Context, source, destination *Monitor, o MigrationOptions) error {
	type capability struct {
		Name string `json:"capability"`
		On   bool   `json:"state"`
	}
	both := []capability{{"events", true}, {"multifd", o.Multifd}}
	for _, end := range []struct {
		*Monitor
		capabilities []capability
	}{{source, append(both, capability{"pause-before-switchover", o.CountDowntime})}, {destination, both}} {
		err := end.Execute(ctx, "migrate-set-capabilities", map[string]any{"capabilities": end.capabilities}, nil)
		if err != nil {
			return err
		}
	}
	err := source.Execute(ctx, "migrate-set-parameters", map[string]any{
		"max-bandwidth": unlimitedBytesPerS, "downtime-limit": max(1, o.MaxDowntime.Milliseconds()),
	}, nil)
	if err != nil {
		return err
	}
	return destination.Execute(ctx, "migrate-incoming", map[string]any{"uri": o.URI}, nil)
}

// follower watches a migration at its source.
type follower struct {
	source     *Monitor
	result     *Migration
	stopped    time.Time
	sentBefore uint64 // bytes, when the guest stopped
}

func (f *follower) follow(ctx context.Context, patience time.Duration) error {
	errImpatient := errors.New("patience is over")
	hurried, cancel := context.WithTimeoutCause(ctx, patience, errImpatient)
	defer cancel()
	for {
		e, err := f.source.Await(hurried)
		if errors.Is(err, errImpatient) {
			f.result.Converged = false
			err = f.source.Execute(ctx, "migrate-set-parameters", map[string]any{"downtime-limit": anyDowntimeMS}, nil)
			hurried = ctx
			if err == nil {
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

func (f *follower) event(ctx context.Context, e Event) (done bool, err error) {
	if e.Name == "STOP" {
		f.stopped = e.Time()
	}
	if e.Name != "MIGRATION" {
		return false, nil
	}
	var data struct {
		Status string `json:"status"`
	}
	if err := json.Unmarshal(e.Data, &data); err != nil {
		return false, fmt.Errorf("QMP event MIGRATION: %w", err)
	}
	switch data.Status {
	case "completed":
		if f.stopped.IsZero() {
			return true, errors.New("QEMU completed a migration without stopping the guest")
		}
		return true, nil
	case "failed", "cancelled":
		i, err := query(ctx, f.source)
		return true, errors.Join(fmt.Errorf("QEMU's migration %s: %s", data.Status, i.ErrorDesc), err)
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

func awaitResume(ctx context.Context, destination *Monitor) (time.Time, error) {
	for {
		e, err := destination.Await(ctx)
		if err != nil {
			return time.Time{}, fmt.Errorf("the destination QEMU: %w", err)
		}
		if e.Name == "RESUME" {
			return e.Time(), nil
		}
	}
}
