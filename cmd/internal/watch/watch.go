package watch

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/fineline-vmm/fineline/coherence/track"
	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/vmm"
	"github.com/fineline-vmm/fineline/vmm/api"
)

var modes = map[string]track.Mode{
	api.TrackDiff: track.Diff, api.TrackStores: track.Stores, api.TrackHomed: track.Homed,
}

// machine is what is needed of a vmm.Machine.
type machine interface {
	Memory() *memory.Guest
	Lines() *track.Engine
	Done() <-chan struct{}
	Outcome() vmm.Outcome
}

// Watch is an api.LineWatch.
type Watch struct {
	machine machine
	lines   *track.Context
	request api.TrackRequest
	pieces  *pieces // nil without details
	began   time.Time
	since   time.Time // when the present window began
	next    int64     // number of the present window
}

var _ api.LineWatch = (*Watch)(nil)

// Open begins to track. The request is valid and has no field left to a default; the ranges, or
// the mode, may still not be the machine's.
func Open(m machine, r api.TrackRequest) (_ *Watch, err error) {
	select {
	case <-m.Done():
		return nil, ended(m)
	default:
	}
	lines, err := m.Lines().NewContext(track.ContextOptions{Mode: modes[r.Mode], CountBytes: r.CountBytes, Unlimited: true})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lines.Close())
		}
	}()
	if err = lines.Register(ranges(m.Memory(), r.Ranges)); err != nil {
		return nil, err
	}
	w := &Watch{machine: m, lines: lines, request: r}
	if r.Detail {
		w.pieces = newPieces(lines.Ranges())
	}
	if err = lines.Arm(); err != nil {
		return nil, err
	}
	w.began = time.Now()
	w.since = w.began
	return w, nil
}

// ranges are what was asked for, or all RAM.
func ranges(mem *memory.Guest, asked []api.TrackRange) (list []track.Range) {
	for _, r := range asked {
		list = append(list, track.Range{Base: memory.GPA(r.Base), SizeBytes: r.SizeBytes})
	}
	if len(asked) > 0 {
		return list
	}
	for _, r := range mem.Regions() {
		list = append(list, track.Range{Base: r.Base, SizeBytes: r.SizeBytes})
	}
	return list
}

// Next implements api.LineWatch.
func (w *Watch) Next(ctx context.Context) (api.TrackWindow, error) {
	length := time.Duration(w.request.WindowMS) * time.Millisecond
	timer := time.NewTimer(time.Until(w.since.Add(length)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-w.machine.Done():
	}
	// The machine first: its process shuts down because its guest has moved.
	if end := ended(w.machine); end != "" {
		return api.TrackWindow{}, end
	}
	if ctx.Err() != nil {
		return api.TrackWindow{}, api.TrackEnded
	}
	return w.harvest()
}

// ended is "" as long as the machine's run goes on.
func ended(m machine) api.TrackEnd {
	select {
	case <-m.Done():
	default:
		return ""
	}
	if m.Outcome().Kind == vmm.EndedByMigration {
		return api.TrackMoved
	}
	return api.TrackEnded
}

// harvest tells the window that ends now.
func (w *Watch) harvest() (api.TrackWindow, error) {
	now := time.Now()
	t := tally{pieces: w.pieces}
	if w.pieces != nil {
		t.pieces.clear()
	}
	_, err := w.lines.Harvest(0, t.add)
	if end := ended(w.machine); end != "" {
		return api.TrackWindow{}, end // it may have ended in the middle
	}
	if err != nil {
		return api.TrackWindow{}, fmt.Errorf("look for written lines: %w", err)
	}
	window := t.window(w.request.CountBytes)
	window.Window = w.next
	window.StartMS, window.LengthMS = ms(w.since.Sub(w.began)), ms(now.Sub(w.since))
	window.HarvestMS = ms(time.Since(now))
	w.since = now
	w.next++
	return window, nil
}

// ms is d in milliseconds, to the microsecond.
func ms(d time.Duration) float64 { return math.Round(float64(d)/float64(time.Microsecond)) / 1000 }

// Close implements api.LineWatch.
func (w *Watch) Close() error { return w.lines.Close() }
