package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/guest/track"
)

// trackOptions is what the user typed.
type trackOptions struct {
	pid     int
	window  time.Duration
	windows int
	json    bool
	ranges  []string
	mode    string
	memory  string
	count   bool
	socket  string
}

func newTrackCommand() *cobra.Command {
	var o trackOptions
	c := &cobra.Command{
		Use:   "track --pid N",
		Short: "Show which lines a process writes, window by window",
		Long: `Show which lines of its memory a process writes, window by window, until it ends or Ctrl-C.

The device is asked through the daemon when its socket is there, else directly; both need root for
another process. The first window is dropped: it shows how tracking begins. Pages that moved, came or went
in a window are counted apart, since their lines are not known.`,
		RunE: func(c *cobra.Command, _ []string) error { return runTrack(c.Context(), o) },
	}
	f := c.Flags()
	f.IntVar(&o.pid, "pid", 0, "the process")
	f.DurationVar(&o.window, "window", time.Second, "length of a window")
	f.IntVar(&o.windows, "windows", 0, "end after this many windows (0: when the process ends)")
	f.BoolVar(&o.json, "json", false, "one JSON object a window on stdout")
	f.StringArrayVar(&o.ranges, "range", nil, "only this memory, START-END in hexadecimal (may repeat)")
	f.StringVar(&o.memory, "memory", "writable", "without --range: writable (all of it) or private (heap, stacks, anonymous)")
	f.StringVar(&o.mode, "mode", "diff", "diff; stores and homed are for programs that track their own memory")
	f.BoolVar(&o.count, "count-bytes", false, "count changed bytes, too (mode diff; the host copies the memory)")
	socketFlag(c, &o.socket, "socket of the daemon")
	return c
}

// parse checks what the user typed.
func (o trackOptions) parse() (track.Options, []track.Range, error) {
	if o.pid <= 0 {
		return track.Options{}, nil, usageError{errors.New("--pid is needed: the process to track")}
	}
	if err := positive("window", o.window); err != nil {
		return track.Options{}, nil, err
	}
	modes := map[string]track.Mode{"diff": track.Diff, "stores": track.Stores, "homed": track.Homed}
	memories := map[string]track.Mappings{"writable": track.FollowWritable, "private": track.FollowPrivate}
	mode, ok1 := modes[o.mode]
	memory, ok2 := memories[o.memory]
	switch {
	case !ok1:
		return track.Options{}, nil, usageError{fmt.Errorf("--mode %q: want diff, stores or homed", o.mode)}
	case !ok2:
		return track.Options{}, nil, usageError{fmt.Errorf("--memory %q: want writable or private", o.memory)}
	case mode != track.Diff:
		return track.Options{}, nil, usageError{fmt.Errorf("--mode %s: a frame that the process gives back would go on exiting under the kernel; "+
			"only a program that locks its own memory may use it (go doc ./guest/track)", o.mode)}
	case o.windows < 0:
		return track.Options{}, nil, usageError{fmt.Errorf("--windows %d: give a number, or 0 for no end", o.windows)}
	}
	var ranges []track.Range
	for _, text := range o.ranges {
		r, err := parseRange(text)
		if err != nil {
			return track.Options{}, nil, usageError{fmt.Errorf("--range: %w", err)}
		}
		ranges = append(ranges, r)
	}
	if len(ranges) > 0 {
		memory = track.FollowNothing
	}
	return track.Options{Mode: mode, CountBytes: o.count, Follow: memory}, ranges, nil
}

// parseRange reads START-END as /proc/PID/maps writes them.
func parseRange(text string) (track.Range, error) {
	from, to, ok := strings.Cut(text, "-")
	start, err1 := strconv.ParseUint(strings.TrimPrefix(from, "0x"), 16, 64)
	end, err2 := strconv.ParseUint(strings.TrimPrefix(to, "0x"), 16, 64)
	if !ok || err1 != nil || err2 != nil || end <= start {
		return track.Range{}, fmt.Errorf("%q: want START-END in hexadecimal", text)
	}
	return track.Range{Address: start, Bytes: end - start}, nil
}

func runTrack(ctx context.Context, o trackOptions) (err error) {
	options, ranges, err := o.parse()
	if err != nil {
		return err
	}
	system, err := openSystem(o.socket)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, system.Close()) }()
	session, err := system.Process(o.pid, options)
	if err != nil {
		return err
	}
	// The tracked process's end must not turn into a failure to clean up.
	defer func() { err = errors.Join(err, session.Close()) }()
	if err := session.Add(ranges...); err != nil {
		return err
	}
	ticker := time.NewTicker(o.window)
	defer ticker.Stop()
	t := tracking{session: session, view: newView(o.json, os.Stdout), notes: os.Stderr, windows: o.windows, cpu: cpuTime, now: time.Now}
	return t.run(ctx, ticker.C)
}

// tracking is the windows of one session.
type tracking struct {
	session track.Session
	view    view
	notes   io.Writer
	windows int
	cpu     func() time.Duration
	now     func() time.Time
}

// row is one window as it is shown.
type row struct {
	Number  int     `json:"window"`
	Seconds float64 `json:"seconds"`
	track.Window
	HarvestMS float64 `json:"harvest_ms"`
	CPUMS     float64 `json:"cpu_ms"` // of this process, since the window before
}

// run shows a window at each tick. The end of the process ends it well.
func (t *tracking) run(ctx context.Context, ticks <-chan time.Time) error {
	if err := t.session.Start(); err != nil {
		return t.ended(err)
	}
	last, cpu := t.now(), t.cpu()
	for n := 0; t.windows == 0 || n <= t.windows; n++ {
		select {
		case <-ctx.Done():
			return t.view.end()
		case <-ticks:
		}
		began := t.now()
		report, err := t.session.Harvest()
		if err != nil {
			return t.ended(err)
		}
		now, used := t.now(), t.cpu()
		if n > 0 { // the first is dropped, as KTracker's users do
			err = t.view.row(row{
				Number: n, Seconds: began.Sub(last).Seconds(), Window: track.Measure(report),
				HarvestMS: milliseconds(now.Sub(began)), CPUMS: milliseconds(used - cpu),
			})
		}
		if err != nil {
			return err
		}
		last, cpu = began, used
	}
	return t.view.end()
}

func (t *tracking) ended(err error) error {
	if !errors.Is(err, track.ErrGone) {
		return err
	}
	fmt.Fprintln(t.notes, "fineline-guest: the process has ended or executes another program")
	return t.view.end()
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
