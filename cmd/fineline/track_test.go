package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/vmm/api"
)

// trackPages are few enough that a vCPU writes them all within each window, whatever else the host does.
const trackPages = 4

// startWriter runs a guest that writes the same lines of its pages again and again.
func (h *house) startWriter(name string, lines int, args ...string) *machine {
	h.t.Helper()
	return h.startDirty(name, "", fmt.Sprintf("pages=%d lines=%d bytes=8 pattern=seq rate=0 verify=0 progress=0", trackPages, lines),
		append([]string{"--memory", "64M"}, args...)...)
}

// region is where the guest writes, as --range takes it.
func (m *machine) region() string {
	return fmt.Sprintf("%#x+%#x", m.serial.Region.Base, m.serial.Region.SizeBytes)
}

// contexts is how many look for written lines.
func (m *machine) contexts() int {
	m.h.t.Helper()
	raw, err := m.API.Metrics(m.h.ctx)
	if err != nil {
		m.h.t.Fatal(err)
	}
	var metrics struct {
		Lines *struct {
			Contexts      int    `json:"contexts"`
			BaselineBytes uint64 `json:"baseline_bytes"`
		} `json:"lines"`
	}
	if err := json.Unmarshal(raw, &metrics); err != nil || metrics.Lines == nil {
		m.h.t.Fatalf("%s: %v", raw, err)
	}
	if metrics.Lines.Contexts == 0 && metrics.Lines.BaselineBytes != 0 {
		m.h.t.Errorf("nobody tracks, and baselines have %d bytes", metrics.Lines.BaselineBytes)
	}
	return metrics.Lines.Contexts
}

func (m *machine) awaitContexts(n int) {
	m.h.t.Helper()
	m.h.eventually(fmt.Sprintf("%s has %d contexts", m.name, n), func() bool { return m.contexts() == n })
}

// client is a `fineline track` process.
type client struct {
	*exec.Cmd
	stdout *bufio.Scanner
	stderr bytes.Buffer
}

func (m *machine) track(args ...string) *client {
	m.h.t.Helper()
	c := &client{Cmd: exec.CommandContext(m.h.ctx, program(m.h.t), append([]string{"track", "--api", m.APIPath}, args...)...)}
	c.Stderr = &c.stderr
	stdout, err := c.StdoutPipe()
	if err != nil {
		m.h.t.Fatal(err)
	}
	c.stdout = bufio.NewScanner(stdout)
	if err := c.Start(); err != nil {
		m.h.t.Fatal(err)
	}
	m.h.t.Cleanup(func() { _ = c.Process.Kill() }) // has ended already if all went well
	return c
}

// next returns the next window, or nil at the end. Each line must be one object and no more than
// is documented.
func (c *client) next(t *testing.T) *api.TrackWindow {
	t.Helper()
	if !c.stdout.Scan() {
		return nil
	}
	var w api.TrackWindow
	d := json.NewDecoder(strings.NewReader(c.stdout.Text()))
	d.DisallowUnknownFields()
	if err := d.Decode(&w); err != nil {
		t.Fatalf("%q: %v", c.stdout.Text(), err)
	}
	return &w
}

// With N lines written in each page, to know pages only costs 64/N times the bytes: what users see.
// A client that is killed leaves the machine as it was.
func TestTrackAmplification(t *testing.T) {
	for _, n := range []int{1, 4, 64} {
		for _, mode := range []string{api.TrackDiff, api.TrackStores, api.TrackHomed} {
			t.Run(fmt.Sprintf("%s %d lines", mode, n), func(t *testing.T) {
				h := newHouse(t)
				m := h.startWriter("vm", n)
				length := "50ms"
				if slow() {
					length = "2s" // an exit takes a millisecond there
				}
				c := m.track("--range", m.region(), "--mode", mode, "--window", length, "--json")
				w := c.next(t)
				for first := int64(1); w != nil && w.Lines < uint64(n)*trackPages; first++ { // until the host lets it run
					if w.Window != first {
						t.Errorf("window %d follows %d", w.Window, first-1)
					}
					w = c.next(t)
				}
				if w == nil {
					t.Fatalf("the stream ended: %s", &c.stderr)
				}
				if w.Pages != trackPages || w.Lines != uint64(n)*trackPages || *w.Amplification4K != 64/float64(n) || w.InexactPages != 0 {
					t.Errorf("%+v: amplification %v", w, *w.Amplification4K)
				}
				if got := m.contexts(); got != 1 {
					t.Errorf("%d contexts", got)
				}
				if err := c.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				_ = c.Wait() // it was killed
				m.awaitContexts(0)
				m.checkRuns()
				m.stop()
			})
		}
	}
}

// Two clients see the same lines, each in windows of its own. A stop of the machine ends both well.
func TestTrackTwiceAndStop(t *testing.T) {
	h := newHouse(t)
	m := h.startWriter("vm", 4)
	one := m.track("--range", m.region(), "--window", "20ms", "--json", "--count-bytes")
	two := m.track("--window", "30ms", "--json")
	for _, c := range []*client{one, two} {
		for w := c.next(t); ; w = c.next(t) {
			if w == nil {
				t.Fatalf("the stream ended: %s", &c.stderr)
			}
			if w.Lines >= 4*trackPages {
				break
			}
		}
	}
	if got := m.contexts(); got != 2 {
		t.Errorf("%d contexts", got)
	}
	m.stop()
	for _, c := range []*client{one, two} {
		for c.next(t) != nil {
		}
		if err := c.Wait(); err != nil || c.stderr.String() != "the machine has ended\n" {
			t.Errorf("%v: %q", err, c.stderr.String())
		}
	}
}

// A paused guest writes nothing, and its windows go on.
func TestTrackPaused(t *testing.T) {
	h := newHouse(t)
	m := h.startWriter("vm", 1)
	c := m.track("--range", m.region(), "--window", "20ms", "--json")
	for w := c.next(t); w.Lines == 0; w = c.next(t) {
	}
	if err := m.API.Pause(h.ctx); err != nil {
		t.Fatal(err)
	}
	for w := c.next(t); w.Lines != 0; w = c.next(t) { // what was written before
	}
	for range 3 {
		if w := c.next(t); w.Lines != 0 || w.Pages != 0 || w.Amplification4K != nil {
			t.Errorf("while it is paused: %+v", w)
		}
	}
	if err := m.API.Resume(h.ctx); err != nil {
		t.Fatal(err)
	}
	for w := c.next(t); w.Lines == 0; w = c.next(t) {
	}
	if err := c.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil { // that is how one ends it
		t.Errorf("%v: %s", err, &c.stderr)
	}
	m.awaitContexts(0)
	m.stop()
}

// Who watches a machine that moves sees it until it has moved, and holds nothing up: both share one log
// of dirty pages.
func TestTrackAcrossMigration(t *testing.T) {
	for _, dirty := range []string{"log", "ring"} {
		for _, mode := range []string{api.TrackDiff, api.TrackStores} {
			t.Run(dirty+" "+mode, func(t *testing.T) {
				h := newHouse(t)
				src := h.startDirty("src", "", "pages=2048 lines=4 rate=20000 progress=0", "--memory", "64M", "--dirty", dirty)
				dst, to := h.startIncoming("dst", "")
				var last api.TrackEvent
				windows := 0
				var moving sync.WaitGroup
				defer moving.Wait()
				r := api.TrackRequest{WindowMS: 10, Mode: mode, Ranges: []api.TrackRange{
					{Base: src.serial.Region.Base, SizeBytes: src.serial.Region.SizeBytes},
				}}
				for ev, err := range src.API.Track(h.ctx, r) {
					if err != nil {
						t.Fatal(err)
					}
					if last = ev; ev.Final {
						break
					}
					if windows++; windows == 1 {
						moving.Go(func() {
							if _, err := src.Migrate(h.ctx, request(to), ignoreProgress); err != nil {
								t.Error(err)
							}
						})
					}
				}
				if last.Ended != api.TrackMoved {
					t.Errorf("the end after %d windows: %+v", windows, last)
				}
				moving.Wait()
				if code := src.awaitExit(); code != 0 {
					t.Errorf("the source ended with %d: %s", code, src.Stderr())
				}
				dst.awaitPhase(api.Running)
				dst.checkRuns()
				if got := dst.contexts(); got != 0 {
					t.Errorf("%d contexts have moved, and nobody there knows of them", got)
				}
				dst.stop()
			})
		}
	}
}

// On a terminal it is a picture that fits, also after the size has changed, and the terminal is given back.
func TestTrackOnATerminal(t *testing.T) {
	h := newHouse(t)
	m := h.startWriter("vm", 4)
	here, there := openTerminal(t)
	resize := func(cols, rows uint16) {
		t.Helper()
		if err := unix.IoctlSetWinsize(int(here.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: cols, Row: rows}); err != nil {
			t.Fatal(err)
		}
	}
	resize(80, 24)
	cmd := exec.CommandContext(h.ctx, program(t), "track", "--api", m.APIPath, "--window", "20ms")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = there, there, there
	cmd.Env = append(os.Environ(), "TERM=xterm", "NO_COLOR=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = there.Close() // the reader below sees the end
	shown := bufio.NewReader(here)
	frame := func() string {
		t.Helper()
		text, err := shown.ReadString('l') // of \x1b[?2026l, and of words
		for err == nil && !strings.HasSuffix(text, "\x1b[?2026l") {
			var more string
			more, err = shown.ReadString('l')
			text += more
		}
		if err != nil {
			t.Fatalf("the picture ends: %v: %q", err, text)
		}
		return text
	}
	awaitFrame := func(rows int) {
		t.Helper()
		for f := frame(); !strings.Contains(f, "hottest page") || strings.Count(f, "\r\n") != rows-1; f = frame() {
		}
	}
	awaitFrame(24)
	resize(60, 15)
	awaitFrame(15)
	if err := cmd.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(shown)
	if err != nil && !errors.Is(err, unix.EIO) { // the other end is closed
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, rest)
	}
	if _, after, ok := strings.Cut(string(rest), "\x1b[?25h\x1b[?1049l"); !ok || !strings.HasPrefix(after, "window ") {
		t.Errorf("the terminal is left with %q", rest)
	}
	m.awaitContexts(0)
	m.stop()
}
