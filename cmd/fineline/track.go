package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/cmd/internal/view"
	"github.com/fineline-vmm/fineline/vmm/api"
)

// trackFlags are the flags of `fineline track`.
type trackFlags struct {
	ranges     []string
	window     time.Duration
	windows    int64
	mode       string
	countBytes bool
	asJSON     bool
	svg        string
}

func newTrackCommand() *cobra.Command {
	f := &trackFlags{}
	c := clientCommand("track", "Watch which 64-byte lines of a machine's memory are written", f.run)
	c.Long = `Watch which 64-byte lines of a running machine's memory are written, window of
time by window of time, and what it would cost to know pages only: amplification is
the bytes of the pages with a written line over the bytes of the written lines.

On a terminal it is a live map of memory. Elsewhere it is a line a window, or with
--json an object a line. The first window is dropped: with KTracker, whose metric
this is, it holds every line. It ends with the machine, after --windows, or by Ctrl-C.

Mode diff finds lines whose bytes changed and costs the guest a write fault a page and
window. Modes stores and homed find every line stored to, with an exit for each store
(homed: each access); they are for --range of plain data.`
	fl := c.Flags()
	fl.StringArrayVar(&f.ranges, "range", nil, "BASE+SIZE or BASE-END of guest memory, for example 0x100000+2M; may be repeated (default all RAM)")
	fl.DurationVar(&f.window, "window", time.Second, "length of a window")
	fl.Int64Var(&f.windows, "windows", 0, "end after so many windows are shown; 0: never")
	fl.StringVar(&f.mode, "mode", api.TrackDiff, "diff, stores or homed")
	fl.BoolVar(&f.countBytes, "count-bytes", false, "count changed bytes too; needs as much memory as is watched")
	fl.BoolVar(&f.asJSON, "json", false, "print one JSON object a line")
	fl.StringVar(&f.svg, "svg", "", "write a picture of the last window to this file")
	return c
}

func (f *trackFlags) request() (api.TrackRequest, error) {
	r := api.TrackRequest{
		WindowMS: f.window.Milliseconds(), Windows: f.windows, Mode: f.mode, CountBytes: f.countBytes,
	}
	switch {
	case f.window%time.Millisecond != 0 || r.WindowMS == 0:
		return r, fmt.Errorf("--window %v: give whole milliseconds", f.window)
	case f.mode == "":
		return r, errors.New("--mode is empty: choose diff, stores or homed")
	}
	if f.windows > 0 {
		r.Windows++ // the first is dropped
	}
	for _, text := range f.ranges {
		one, err := parseRange(text)
		if err != nil {
			return r, fmt.Errorf("--range %q: %w", text, err)
		}
		r.Ranges = append(r.Ranges, one)
	}
	return r, r.Validate()
}

// parseRange reads BASE+SIZE or BASE-END; the byte at END is not in it.
func parseRange(text string) (r api.TrackRange, err error) {
	base, size, isSize := strings.Cut(text, "+")
	if !isSize {
		var ok bool
		if base, size, ok = strings.Cut(text, "-"); !ok {
			return r, errors.New("give BASE+SIZE or BASE-END")
		}
	}
	if r.Base, err = parseAddress(base); err != nil {
		return r, err
	}
	if r.SizeBytes, err = parseAddress(size); err != nil {
		return r, err
	}
	if !isSize {
		if r.SizeBytes <= r.Base {
			return r, errors.New("it ends before it begins")
		}
		r.SizeBytes -= r.Base
	}
	return r, nil
}

// parseAddress reads 0x100000, 1048576 or 1M.
func parseAddress(text string) (uint64, error) {
	if n, err := strconv.ParseUint(text, 0, 64); err == nil {
		return n, nil
	}
	var size sizeBytes
	if err := size.Set(text); err != nil {
		return 0, fmt.Errorf("%q is not an address or a size: write 0x100000 or 1M", text)
	}
	return uint64(size), nil
}

func (f *trackFlags) run(c *cobra.Command, client *api.Client) (err error) {
	request, err := f.request()
	if err != nil {
		return usageError{err}
	}
	var svg *os.File
	if f.svg != "" { // now: nobody wants to learn in an hour that it can't be made
		if svg, err = os.OpenFile(f.svg, os.O_WRONLY|os.O_CREATE, 0o644); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, svg.Close()) }()
	}
	live := !f.asJSON && c.OutOrStdout() == os.Stdout && view.IsTerminal(os.Stdout)
	request.Detail = live || svg != nil
	picture := &view.Heat{Mode: f.mode, Every: f.window, Colour: true}
	table := &view.Windows{Out: c.OutOrStdout(), CountBytes: f.countBytes}
	show := table.Add
	switch {
	case f.asJSON:
		encoder := json.NewEncoder(c.OutOrStdout())
		show = func(w api.TrackWindow) error {
			w.Detail = nil
			return encoder.Encode(w)
		}
	case live:
		screen, err := startLive(os.Stdout, &view.Heat{Mode: f.mode, Every: f.window, Colour: view.HasColours()})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, screen.close(table)) }()
		show = screen.add
	}
	end, err := follow(client.Track(c.Context(), request), func(w api.TrackWindow) error {
		picture.Add(w)
		return show(w)
	})
	if c.Context().Err() != nil {
		err = nil // who watches without an end is done when he says so
	}
	if err == nil && svg != nil {
		if err = svg.Truncate(0); err != nil { // only now: a picture that is there may be all there will be
			return err
		}
		_, err = svg.WriteString(picture.Draw(svgCols, svgRows).SVG("Map of the lines that a guest wrote"))
	}
	if err == nil && (end == api.TrackMoved || end == api.TrackEnded) {
		fmt.Fprintln(os.Stderr, end.Error())
	}
	return err
}

// The size of the picture in a file.
const (
	svgCols = 92
	svgRows = 32
)

// follow shows each window but the first, and returns why there are no more.
func follow(events iter.Seq2[api.TrackEvent, error], show func(api.TrackWindow) error) (api.TrackEnd, error) {
	for ev, err := range events {
		switch {
		case err != nil:
			return "", err
		case ev.Ended == api.TrackFailed:
			return ev.Ended, errors.New(ev.Fault)
		case ev.Final:
			return ev.Ended, nil
		case ev.TrackWindow == nil:
			return "", errors.New("the VMM sends no windows: it is another version than this client")
		case ev.Window == 0:
			continue
		}
		if err := show(*ev.TrackWindow); err != nil {
			return "", err
		}
	}
	return "", api.ErrStreamCut
}

// live is the map on a terminal.
type live struct {
	resized chan os.Signal
	drawn   sync.WaitGroup // of the goroutine that draws anew when the size changes

	mu     sync.Mutex
	heat   *view.Heat
	screen *view.Screen
	last   *api.TrackWindow
}

func startLive(out *os.File, heat *view.Heat) (*live, error) {
	screen, err := view.NewScreen(out)
	if err != nil {
		return nil, err
	}
	l := &live{resized: make(chan os.Signal, 1), heat: heat, screen: screen}
	signal.Notify(l.resized, unix.SIGWINCH)
	l.drawn.Go(func() {
		_ = l.draw() // a terminal that has gone fails the next window, too
		for range l.resized {
			_ = l.draw()
		}
	})
	return l, nil
}

func (l *live) draw() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.screen.Show(l.heat.Draw)
}

func (l *live) add(w api.TrackWindow) error {
	l.mu.Lock()
	l.heat.Add(w)
	l.last = &w
	l.mu.Unlock()
	return l.draw()
}

// close gives the terminal back, and leaves the numbers of the last window there.
func (l *live) close(table *view.Windows) error {
	signal.Stop(l.resized)
	close(l.resized)
	l.drawn.Wait()
	if err := l.screen.Close(); err != nil || l.last == nil {
		return err
	}
	return table.Add(*l.last)
}
