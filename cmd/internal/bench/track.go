package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/fineline-vmm/fineline/coherence/track"
	"github.com/fineline-vmm/fineline/images/dirtycheck"
	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/vmm"
)

const (
	trackGuestBytes = 1 << 30
	trackWindow     = time.Second
	trackWindows    = 2 // of each run that are measured; one more before them settles
)

// trackLoads are shares of the guest's pages, each of which is written in every window.
var trackLoads = []struct {
	name  string
	share float64
}{{"1 % of pages dirty a second", 0.01}, {"10 % of pages dirty a second", 0.10}}

// Track measures what tracking by the line costs a guest that writes as fast as it can, beside
// KVM's page log collected as often; what a harvest costs; and what memory it takes when every page is
// dirty. It runs machines in this process (see Exits).
func Track(ctx context.Context, runs int, progress Progress) (*Report, error) {
	r, err := newReport("track")
	if err != nil {
		return nil, err
	}
	total := len(trackLoads)*runs + 1
	for i, load := range trackLoads {
		var ours, peer, harvest, collect []float64
		for run := range runs {
			m, err := trackedMachine(ctx, int(load.share*trackGuestBytes/memory.PageSize))
			if err != nil {
				return nil, err
			}
			log, logErr := measureWatch(ctx, m, watchPages)
			lines, linesErr := measureWatch(ctx, m, watchLines)
			if err := errors.Join(logErr, linesErr, m.Close()); err != nil {
				return nil, err
			}
			peer, ours = append(peer, log.stepsPerS/1e6), append(ours, lines.stepsPerS/1e6)
			collect, harvest = append(collect, log.usPerPage), append(harvest, lines.usPerPage)
			progress(i*runs+run+1, total)
		}
		r.add("guest's stores, "+load.name, "M/s", "KVM's page log", ours, peer)
		r.add("harvest of a dirty page, "+load.name, "µs", "KVM's page log", harvest, collect)
	}
	share, err := trackMemory(ctx)
	if err != nil {
		return nil, err
	}
	progress(total, total)
	r.add("memory beyond the guest, every page dirty, hashes", "% of the guest's", "", []float64{share}, nil)
	return r, nil
}

// trackedMachine is a guest that writes one line in each of so many pages, as fast as it can.
func trackedMachine(ctx context.Context, pages int) (*vmm.Machine, error) {
	var out syncBuffer
	m, err := vmm.New(vmm.Config{
		CPUs: 1, MemoryBytes: trackGuestBytes, CPUModel: vmm.CPUHost, SerialOut: &out,
		Boot: vmm.BootFiles{Kernel: vmm.BuiltinPrefix + "dirty", Cmdline: fmt.Sprintf("pages=%d lines=1 rate=0 table=0 progress=0", pages)},
	})
	if err != nil {
		return nil, err
	}
	if err = m.Boot(); err == nil {
		err = m.Resume()
	}
	for err == nil && !strings.Contains(out.String(), "dirty ready") {
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-m.Done():
			err = fmt.Errorf("the guest ended: %q", out.String())
		case <-time.After(time.Millisecond):
		}
	}
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// watch is how written pages or lines are found: harvest returns the number of pages.
type watch struct {
	harvest func() (pages uint64, err error)
	stop    func() error
}

func watchPages(m *vmm.Machine) (*watch, error) {
	tracker := m.Memory().Track(m.DirtySource())
	set := m.Memory().NewPageSet()
	return &watch{stop: tracker.Stop, harvest: func() (uint64, error) {
		set.Clear()
		err := tracker.Collect(set)
		return set.Len(), err
	}}, tracker.Start()
}

func watchLines(m *vmm.Machine) (*watch, error) {
	c, err := m.Lines().NewContext(track.ContextOptions{})
	if err != nil {
		return nil, err
	}
	var all []track.Range
	for _, r := range m.Memory().Regions() {
		all = append(all, track.Range{Base: r.Base, SizeBytes: r.SizeBytes})
	}
	if err := errors.Join(c.Register(all), c.Arm()); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &watch{stop: c.Close, harvest: func() (pages uint64, err error) {
		_, err = c.Harvest(0, func(track.Page) { pages++ })
		return pages, err
	}}, nil
}

// watched is what a run of windows measured.
type watched struct{ stepsPerS, usPerPage float64 }

// measureWatch lets the guest run for some windows, each of which ends with a harvest.
func measureWatch(ctx context.Context, m *vmm.Machine, start func(*vmm.Machine) (*watch, error)) (result watched, err error) {
	w, err := start(m)
	if err != nil {
		return watched{}, err
	}
	defer func() { err = errors.Join(err, w.stop()) }()
	var began time.Time
	var firstSteps, pages uint64
	var inHarvest time.Duration
	for window := range 1 + trackWindows {
		if window == 1 {
			if firstSteps, err = guestSteps(m); err != nil {
				return watched{}, err
			}
			began, pages, inHarvest = time.Now(), 0, 0
		}
		select {
		case <-ctx.Done():
			return watched{}, ctx.Err()
		case <-time.After(trackWindow):
		}
		start := time.Now()
		n, err := w.harvest()
		if err != nil {
			return watched{}, err
		}
		pages, inHarvest = pages+n, inHarvest+time.Since(start)
	}
	steps, err := guestSteps(m)
	if err != nil {
		return watched{}, err
	}
	return watched{
		stepsPerS: float64(steps-firstSteps) / time.Since(began).Seconds(),
		usPerPage: float64(inHarvest.Nanoseconds()) / 1000 / float64(pages),
	}, nil
}

func guestSteps(m *vmm.Machine) (uint64, error) {
	s, err := dirtycheck.ReadState(m.Memory())
	if err != nil {
		return 0, err
	}
	return s.Steps(), nil
}

// trackMemory is the memory that tracking takes when nearly all pages of a guest are dirty in every window, in
// percent of the guest's.
func trackMemory(ctx context.Context) (float64, error) {
	m, err := trackedMachine(ctx, trackGuestBytes/memory.PageSize*95/100)
	if err != nil {
		return 0, err
	}
	debug.FreeOSMemory() // of the machines before
	before, err := ownBytes()
	if err != nil {
		return 0, errors.Join(err, m.Close())
	}
	var after int64
	_, err = measureWatch(ctx, m, func(m *vmm.Machine) (*watch, error) {
		w, err := watchLines(m)
		if err != nil {
			return nil, err
		}
		harvest := w.harvest
		w.harvest = func() (uint64, error) {
			n, err := harvest()
			now, ownErr := ownBytes()
			after = max(after, now)
			return n, errors.Join(err, ownErr)
		}
		return w, nil
	})
	if err := errors.Join(err, m.Close()); err != nil {
		return 0, err
	}
	return 100 * float64(after-before) / trackGuestBytes, nil
}

// ownBytes is this process's resident memory without the guests', which is shared memory.
func ownBytes() (int64, error) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var kib int64
		if _, err := fmt.Sscanf(s.Text(), "RssAnon: %d kB", &kib); err == nil {
			return kib << 10, nil
		}
	}
	return 0, errors.New("/proc/self/status has no RssAnon")
}
