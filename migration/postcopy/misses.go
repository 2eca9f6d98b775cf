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
	since   map[uint64]time.Time
	idle    chan struct{}           // closed when nobody waits any more; nil when nobody does
	latency *hdrhistogram.Histogram // in ns
}

// The histogram's range; what takes longer counts as that.
const (
	maxLatency     = 10 * time.Minute
	latencyFigures = 2 // significant figures: 1 %
)

func newMisses() *misses {
	return &misses{since: map[uint64]time.Time{}, latency: hdrhistogram.New(1, int64(maxLatency), latencyFigures)}
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
	m.since[page] = now
	m.waiting.Store(int32(len(m.since)))
	if m.idle == nil {
		m.idle = make(chan struct{})
	}
}

// settle ends a miss of a page that is in place now, and reports whether there was one.
func (m *misses) settle(page uint64) bool {
	if m.waiting.Load() == 0 {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	since, ok := m.since[page]
	if !ok {
		return false
	}
	_ = m.latency.RecordValue(int64(min(time.Since(since), maxLatency))) // it is in range
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
		m.since[page] = now
		pages = append(pages, page)
	}
	slices.Sort(pages)
	return pages
}

// oldest returns the miss that has waited longest.
func (m *misses) oldest() (page uint64, since time.Time, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for p, t := range m.since {
		if !ok || t.Before(since) {
			page, since, ok = p, t, true
		}
	}
	return page, since, ok
}

func (m *misses) summary() Latency {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Latency{
		Count:   uint64(m.latency.TotalCount()),
		P50:     time.Duration(m.latency.ValueAtQuantile(50)),
		P99:     time.Duration(m.latency.ValueAtQuantile(99)),
		Max:     time.Duration(m.latency.Max()),
		Buckets: latencyBuckets(m.latency),
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
