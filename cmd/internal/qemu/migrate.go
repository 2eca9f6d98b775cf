package qemu

import (
	"context"
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
	Setting     Setting
	From, To    string // URIs: where the source connects, and where the destination listens
	MaxDowntime time.Duration
	// MaxBandwidthBytesPerS limits QEMU itself; 0 is no limit.
	MaxBandwidthBytesPerS uint64
	// Patience is how long the rounds may go on before the downtime goal is given up. QEMU
	// itself would go on for ever.
	Patience time.Duration
	// CountDowntime holds the migration at the switch-over to count the bytes after it. It
	// makes DowntimeMS and TotalMS longer. Without effect on post-copy, which sends none.
	CountDowntime bool
	// FollowRounds asks for figures at each pass, which disturbs a little.
	FollowRounds bool
	// Resumed, if any, is called when the guest runs at the destination, which in post-copy is before the end.
	Resumed func()
}

// Migration is what came of one. Bytes are of RAM: QEMU does not count device state.
type Migration struct {
	TotalMS         float64
	DowntimeMS      float64 // from STOP at the source to RESUME at the destination
	OwnDowntimeMS   float64 // as the source reports it
	SourceMS        float64 // the part of DowntimeMS until the source had sent all; 0 in post-copy
	BytesSent       uint64
	BytesInDowntime uint64 // with CountDowntime
	Rounds          int
	Converged       bool    // the downtime goal was not given up
	Passes          []Pass  // with FollowRounds
	Requests        uint64  // pages that the destination asked for, in post-copy
	AfterResumeMS   float64 // from RESUME until all pages were there, in post-copy
}

// Pass is one over the dirty pages.
type Pass struct {
	StartMS, MS float64 // StartMS: since the first
	Bytes       uint64
	Pages       uint64 // with content
	Paused      bool
}

// Migrate moves the guest of source to destination, which was started with `-incoming
// defer`, and returns when it runs there and needs the source no more.
func Migrate(ctx context.Context, source, destination *Monitor, o MigrationOptions) (*Migration, error) {
	if err := prepare(ctx, source, destination, o); err != nil {
		return nil, err
	}
	if err := source.Execute(ctx, "migrate", map[string]any{"uri": o.From}, nil); err != nil {
		return nil, err
	}
	if o.Setting.Postcopy { // at once: it takes effect when some memory has been sent
		if err := source.Execute(ctx, "migrate-start-postcopy", nil, nil); err != nil {
			return nil, err
		}
	}
	resumed := make(chan resumption, 1)
	go func() { resumed <- awaitResume(ctx, destination, o.Resumed) }()
	f := follower{source: source, options: o, result: &Migration{Converged: true}}
	err := f.follow(ctx)
	if err != nil {
		return nil, err // the destination is closed by the caller, which ends the goroutine
	}
	there := <-resumed
	if there.err != nil {
		return nil, there.err
	}
	i, err := queryTimes(ctx, source)
	if err != nil {
		return nil, err
	}
	f.finish(i, there.at)
	return f.result, nil
}

// finish computes the figures that need both ends.
func (f *follower) finish(i info, resumed time.Time) {
	r := f.result
	r.TotalMS, r.OwnDowntimeMS = i.TotalTimeMS, i.DowntimeMS
	r.DowntimeMS = milliseconds(resumed.Sub(f.stopped))
	r.BytesSent, r.Rounds, r.Requests = i.RAM.Transferred, i.RAM.Rounds, i.RAM.Requests
	switch {
	case f.options.Setting.Postcopy:
		r.AfterResumeMS = milliseconds(f.completed.Sub(resumed))
	default:
		r.SourceMS = min(r.DowntimeMS, milliseconds(f.completed.Sub(f.stopped)))
	}
	if f.options.CountDowntime && !f.options.Setting.Postcopy {
		r.BytesInDowntime = r.BytesSent - f.sentBefore
	}
	f.endPass(f.completed, i)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// prepare sets both ends up and lets the destination listen.
func prepare(ctx context.Context, source, destination *Monitor, o MigrationOptions) error {
	type capability struct {
		Name string `json:"capability"`
		On   bool   `json:"state"`
	}
	both := []capability{{"events", true}}
	for _, name := range o.Setting.capabilities {
		both = append(both, capability{name, true})
	}
	hold := capability{"pause-before-switchover", o.CountDowntime && !o.Setting.Postcopy}
	bandwidth := o.bandwidth()
	if o.Setting.WarmPasses > 0 {
		bandwidth = min(bandwidth, o.Setting.WarmBytesPerS)
	}
	limits := map[string]any{"max-bandwidth": bandwidth, "downtime-limit": o.firstDowntimeMS()}
	if o.Setting.Postcopy {
		limits["max-postcopy-bandwidth"] = o.MaxBandwidthBytesPerS // 0 is no limit here
	}
	for _, end := range []struct {
		*Monitor
		capabilities []capability
		parameters   map[string]any
	}{{source, append(both, hold), limits}, {destination, both, nil}} {
		err := end.Execute(ctx, "migrate-set-capabilities", map[string]any{"capabilities": end.capabilities}, nil)
		if err != nil {
			return err
		}
		for _, parameters := range []map[string]any{o.Setting.parameters, end.parameters} {
			if len(parameters) == 0 {
				continue
			}
			if err := end.Execute(ctx, "migrate-set-parameters", parameters, nil); err != nil {
				return err
			}
		}
	}
	return destination.Execute(ctx, "migrate-incoming", map[string]any{"uri": o.To}, nil)
}

func (o *MigrationOptions) bandwidth() uint64 {
	if o.MaxBandwidthBytesPerS == 0 {
		return unlimitedBytesPerS
	}
	return o.MaxBandwidthBytesPerS
}

// firstDowntimeMS is the limit that the migration begins with. A cache is warmed under the smallest one: with 0
// QEMU would not look for dirty pages again after the first pass.
func (o *MigrationOptions) firstDowntimeMS() int64 {
	if o.Setting.WarmPasses > 0 {
		return 1
	}
	return o.downtimeMS()
}

func (o *MigrationOptions) downtimeMS() int64 { return max(1, o.MaxDowntime.Milliseconds()) }

// resumption is when the guest ran at the destination, or why it does not.
type resumption struct {
	at  time.Time
	err error
}

func awaitResume(ctx context.Context, destination *Monitor, resumed func()) resumption {
	for {
		e, err := destination.Await(ctx)
		if err != nil {
			return resumption{err: fmt.Errorf("the destination QEMU: %w", err)}
		}
		if e.Name == "RESUME" {
			if resumed != nil {
				resumed()
			}
			return resumption{at: e.Time()}
		}
	}
}
