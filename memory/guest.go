package memory

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
)

// Options choose how RAM is backed.
type Options struct {
	// HugePages asks for pages of 2 MiB: from the host's pool when it has
	// enough, else transparent ones when the host allows them for shared memory,
	// else New fails with ErrNoHugePages and says what to reserve.
	HugePages bool
}

// Guest is the RAM of one virtual machine. The accessors are safe for
// concurrent use, with each other and with the running guest.
type Guest struct {
	layout *layout
	rams   []ram // by region

	// dirty has one bit a page, placed as in a PageSet, set by every store of
	// this process; see Tracker.
	dirty    []atomic.Uint64
	hub      hub
	observer atomic.Pointer[func(gpa GPA, sizeBytes uint64)] // see Observe

	closed atomic.Bool // read by every accessor, see the package comment

	demand      atomic.Pointer[Demand] // while pages may be missing; read by every accessor
	waitWatcher atomic.Pointer[func()] // see WatchWaits

	mu sync.RWMutex // held for reading while a descriptor is used, for writing by Close
}

// New makes zeroed RAM of the given regions, in any order. Nothing is resident
// until it is touched, except that huge pages from the host's pool are
// reserved. Errors wrap ErrBadLayout, ErrBeyondHost or ErrNoHugePages, or the
// cause in the system. The caller owns the Guest and closes it.
func New(regions []Region, opts Options) (*Guest, error) {
	h, err := probeHost(opts)
	if err != nil {
		return nil, err
	}
	return newGuest(regions, opts, h)
}

func newGuest(regions []Region, opts Options, h host) (*Guest, error) {
	l, err := newLayout(regions)
	if err != nil {
		return nil, err
	}
	b, err := h.choose(l, opts)
	if err != nil {
		return nil, err
	}
	g := newBare(l)
	for i := range l.spans {
		m, err := newRAM(l.spans[i].Region, b)
		if err != nil {
			return nil, errors.Join(err, g.Close())
		}
		g.rams = append(g.rams, m)
	}
	return g, nil
}

// newBare makes a Guest without RAM, for the caller to add.
func newBare(l *layout) *Guest { return &Guest{layout: l, dirty: make([]atomic.Uint64, l.words)} }

// Close frees the RAM. The hypervisor must not run the guest any more. An
// access from then on gets ErrClosed; one that is under way ends without a
// fault, and its effect is lost. A second Close does nothing.
func (g *Guest) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed.Swap(true) {
		return nil
	}
	var errs []error
	errs = append(errs, g.Abandon())
	for i := range g.rams {
		errs = append(errs, g.rams[i].free())
	}
	// The last of an access under way holds g, so this runs after all of them.
	runtime.AddCleanup(g, unmapAll, g.rams)
	return errors.Join(errs...)
}

// Regions returns the regions, sorted by address; they do not overlap.
func (g *Guest) Regions() []Region {
	regions := make([]Region, len(g.layout.spans))
	for i := range regions {
		regions[i] = g.layout.spans[i].Region
	}
	return regions
}

// SizeBytes returns the size of all RAM, in bytes.
func (g *Guest) SizeBytes() uint64 { return g.layout.sizeBytes }

// Pages returns the size of all RAM, in pages.
func (g *Guest) Pages() uint64 { return g.layout.sizeBytes / PageSize }

// Contains reports whether all of the n bytes at gpa are RAM.
func (g *Guest) Contains(gpa GPA, n uint64) bool { return g.layout.contains(gpa, n) }

// GuestMappings returns the guest mapping of every region, for the hypervisor's memory
// slots, by region. The addresses are good until Close,
// after which the result is empty. Nothing but the hypervisor and userfaultfd
// may use them: this process reads and writes by the accessors.
func (g *Guest) GuestMappings() []Mapping {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.closed.Load() {
		return nil
	}
	mappings := make([]Mapping, len(g.rams))
	for i := range mappings {
		mappings[i] = Mapping{Region: g.layout.spans[i].Region, HostAddr: g.rams[i].guestAddr()}
	}
	return mappings
}

// Reset makes all RAM read as zero again, gives its pages back to the host and
// marks every page dirty. The guest must be stopped; stores made meanwhile may
// or may not survive. No page is missing any more after it.
func (g *Guest) Reset() (err error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.closed.Load() {
		return ErrClosed
	}
	if d := g.demand.Load(); d != nil {
		d.fills.Lock()
		defer d.fills.Unlock()
		defer func() { err = errors.Join(err, d.reset()) }()
	}
	for i := range g.rams {
		s := &g.layout.spans[i]
		err := g.rams[i].punch()
		g.mark(i, 0, s.SizeBytes) // also after a failure, which may have done a part
		if err != nil {
			return fmt.Errorf("reset guest memory at %#x: %w", uint64(s.Base), err)
		}
	}
	return nil
}
