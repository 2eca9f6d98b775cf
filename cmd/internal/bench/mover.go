package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fineline-vmm/fineline/cmd/internal/qemu"
	"github.com/fineline-vmm/fineline/cmd/internal/relay"
	"github.com/fineline-vmm/fineline/migration"
)

// Move says how guests are moved, by us and by the peer.
type Move struct {
	Exe         string        // Fineline's binary
	MaxDowntime time.Duration // allowed to both
	// MaxBandwidthBytesPerS is set in both VMMs; 0: as the scenario has it.
	MaxBandwidthBytesPerS uint64
	// Link is one link that the whole stream of both passes; nil: a socket between the two processes.
	Link *relay.Link

	// Local has Fineline hand the memory over; what follows has no meaning then.
	Local bool
	// Of Fineline alone, as its API takes them; empty or 0: its defaults.
	Mode        string // Precopy, Postcopy or Hybrid
	Granularity string // page or line
	Baseline    string // auto, twin, hash or none
	// BaselineBudgetBytes is the most memory that baselines may take.
	BaselineBudgetBytes uint64
	Streams             int // connections for pages
	KeepSource          bool
}

// sample is one migration.
type sample struct {
	totalMS, downtimeMS, ownDowntimeMS float64
	bytesSent, bytesInDowntime         float64
	rounds                             float64
	converged                          bool
	mismatches                         uint64 // of both ends' checks
	source, destination                taken
	baselineMiB, throttle              float64 // ours: memory of baselines, and by how much the guest was slowed down, in percent

	afterResumeMS float64   // post-copy: until all pages were there
	requests      float64   // post-copy: pages that had to be asked for
	faultsUS      []float64 // post-copy: of single requests, where the VMM tells
	stocked       float64   // post-copy: pages that were missed and had come
	p50US, p99US  float64   // post-copy: of both, from the miss to the page in place
	maxUS         float64
	asked50US     float64 // post-copy: of those that had to be asked for
	asked99US     float64
	// post-copy: what the predictor asked for, what of it was stored before anybody waited and what was missed on its way; the misses that
	// it had named and those that it had not
	predicted, stored, caught, right, wrong float64

	before, after float64 // guest's steps a second before the migration, and in the first one after the resume

	kept kept
}

const mib = 1 << 20

// extras are what a single migration can be asked for, at the price of some disturbance.
type extras struct {
	count  bool // bytes in the downtime, or latencies of single faults
	rounds bool // figures of each
	steps  bool // of the guest, before and during a post-copy
}

// record is a migration in full, for a picture of it.
type record struct {
	sample
	result *migration.Result // ours
	peer   *qemu.Migration
}

// inDir gives fn a directory for its sockets. Its name has no comma, at which QEMU splits.
func inDir(fn func(dir string) (record, error)) (record, error) {
	dir, err := os.MkdirTemp("", "fineline-bench-")
	if err != nil {
		return record{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	return fn(dir)
}

const (
	incomingSocket = "incoming.sock"
	relaySocket    = "relay.sock"
)

// connect returns the socket that a source shall connect to so that it reaches incomingSocket, and what ends the way there.
func (m *Move) connect(dir string) (path string, end func() error, err error) {
	incoming := filepath.Join(dir, incomingSocket)
	if m.Link == nil {
		return incoming, func() error { return nil }, nil
	}
	path = filepath.Join(dir, relaySocket)
	r, err := relay.Start(path, incoming, *m.Link)
	if err != nil {
		return "", nil, err
	}
	return path, r.Close, nil
}

// bandwidth is the limit that both VMMs are given, or 0.
func (m *Move) bandwidth(s *Scenario) uint64 {
	if m.MaxBandwidthBytesPerS != 0 {
		return m.MaxBandwidthBytesPerS
	}
	return s.bandwidth
}

// patience is when a migration that does not converge gives up its downtime goal: it gets seconds, and on a slow way
// the time to send what is hot three times.
func (m *Move) patience(s *Scenario) time.Duration {
	const least, passes = 4 * time.Second, 3
	rate := m.bandwidth(s)
	if m.Link != nil && (rate == 0 || m.Link.BitsPerS/8 < rate) {
		rate = m.Link.BitsPerS / 8
	}
	if rate == 0 {
		return least
	}
	return least + time.Duration(passes*float64(s.hotBytes())/float64(rate)*float64(time.Second))
}

// way says in a row's text what both VMMs were limited by.
func (m *Move) way(s *Scenario) string {
	var text string
	if m.Link != nil {
		text += fmt.Sprintf(", limited by a relay to %s", m.Link)
	}
	if b := m.bandwidth(s); b != 0 && b != s.bandwidth {
		text += fmt.Sprintf(", %d MiB/s allowed", b>>20)
	}
	return text
}
