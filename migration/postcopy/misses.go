package postcopy

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// misses are the pages that somebody waits for, each from the instant at which that was seen until it is in
// place, and how long that took. They are as many as there are threads that can wait.
type misses struct {
	waiting atomic.Int32 // len(since); read at each arrival

	mu      sync.Mutex
	since   map[uint64]miss
	idle    chan struct{}           // closed when nobody waits any more; nil when nobody does
	latency *hdrhistogram.Histogram // in ns
	asked   *hdrhistogram.Histogram // of those that were asked for
}

type miss struct {
	at    time.Time
	asked bool // for, over the connection
}

// The histogram's range; what takes longer counts as that.
const (
	maxLatency     = 10 * time.Minute
	latencyFigures = 2 // significant figures: 1 %
)

func newMisses() *misses {
	return &misses{
		since:   map[uint64]miss{},
		latency: hdrhistogram.New(1, int64(maxLatency), latencyFigures),
		asked:   hdrhistogram.New(1, int64(maxLatency), latencyFigures),
	}
}

// open notes a miss. Whoever fills a page does that first and calls settle then, so a caller that finds the
// page absent after open knows that settle will see it.
func (m *misses) open(page uint64, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.note(page, now)
}

// openFirst is open, but a miss that is noted keeps its time.
func (m *misses) openFirst(page uint64, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.since[page]; !ok {
		m.note(page, now)
	}
}

// note: mu is held.
func (m *misses) note(page uint64, now time.Time) {
	m.since[page] = miss{at: now}
	m.waiting.Store(int32(len(m.since)))
	if m.idle == nil {
		m.idle = make(chan struct{})
	}
}

// ask notes that the page is asked for, if it is waited for still.
func (m *misses) ask(page uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if it, ok := m.since[page]; ok {
		it.asked = true
		m.since[page] = it
	}
}

// settle ends a miss of a page that is in place now, and reports whether there was one.
func (m *misses) settle(page uint64) bool {
	if m.waiting.Load() == 0 {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	it, ok := m.since[page]
	if !ok {
		return false
	}
	took := int64(min(time.Since(it.at), maxLatency)) // which is in the histograms' range
	_ = m.latency.RecordValue(took)
	if it.asked {
		_ = m.asked.RecordValue(took)
	}
	delete(m.since, page)
	m.waiting.Store(int32(len(m.since)))
	if len(m.since) == 0 {
		close(m.idle)
		m.idle = nil
	}
	return true
}

// waitIdle waits until nobody waits, for limit at most, and returns for how long it did.
func (m *misses) waitIdle(limit time.Duration) time.Duration {
	if m.waiting.Load() == 0 {
		return 0
	}
	m.mu.Lock()
	idle := m.idle
	m.mu.Unlock()
	if idle == nil {
		return 0
	}
	begin := time.Now()
	select {
	case <-idle:
	case <-time.After(limit):
	}
	return time.Since(begin)
}

// restart begins the times of all misses anew, and returns their pages: the guest was paused, and they are
// asked for again.
func (m *misses) restart(now time.Time) []uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	var pages []uint64
	for page := range m.since {
		m.since[page] = miss{at: now}
		pages = append(pages, page)
	}
	slices.Sort(pages)
	return pages
}

// oldest returns the miss that has waited longest.
func (m *misses) oldest() (page uint64, since time.Time, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for p, it := range m.since {
		if !ok || it.at.Before(since) {
			page, since, ok = p, it.at, true
		}
	}
	return page, since, ok
}

// summary is of all misses.
func (m *misses) summary() Latency {
	m.mu.Lock()
	defer m.mu.Unlock()
	return latencyOf(m.latency)
}

// askedSummary is of those that were asked for.
func (m *misses) askedSummary() Latency {
	m.mu.Lock()
	defer m.mu.Unlock()
	return latencyOf(m.asked)
}

func latencyOf(h *hdrhistogram.Histogram) Latency {
	return Latency{
		Count:   uint64(h.TotalCount()),
		P50:     time.Duration(h.ValueAtQuantile(50)),
		P99:     time.Duration(h.ValueAtQuantile(99)),
		Max:     time.Duration(h.Max()),
		Buckets: latencyBuckets(h),
	}
}

// latencyBuckets gathers a histogram into quarters of powers of two from 1.25 µs on.
func latencyBuckets(h *hdrhistogram.Histogram) (all []LatencyBucket) {
	octave, quarter := time.Microsecond, 1
	for _, bar := range h.Distribution() {
		if bar.Count == 0 {
			continue
		}
		to := octave + octave*time.Duration(quarter)/4
		for to < time.Duration(bar.To) {
			if quarter++; quarter > 4 {
				octave, quarter = 2*octave, 1
			}
			to = octave + octave*time.Duration(quarter)/4
		}
		if n := len(all); n > 0 && all[n-1].UpTo == to {
			all[n-1].Count += uint64(bar.Count)
			continue
		}
		all = append(all, LatencyBucket{UpTo: to, Count: uint64(bar.Count)})
	}
	return all
}
