package track

import (
	"errors"
	"fmt"
	"sync"

	"github.com/fineline-vmm/fineline/memory"
)

// Process tracks a region of the calling process by the line, for what runs on the host: Page.GPA is the
// offset in the region. It finds written pages by asynchronous write-protection
// (userfaultfd with UFFD_FEATURE_WP_ASYNC and PAGEMAP_SCAN, Linux 6.7), which costs the writer a fault in the
// kernel and never waits for us; synchronous write-protection would stop a writing Go thread inside a
// fault that the runtime does not know of (design law 4). Older kernels have neither: there each harvest compares the whole
// region, as Method says.
type Process struct {
	region []byte

	mu       sync.Mutex
	base     *baselines
	written  pageScan // nil method: compare all
	armed    bool
	began    bool
	draining *lineSet
}

var _ Tracker = (*Process)(nil)

// NewProcess tracks region, a mapping of whole pages that the caller keeps mapped until Stop. Only
// writes through this mapping are seen. Options.MaxRanges and Caches mean nothing here.
func NewProcess(region []byte, o Options) (*Process, error) {
	if len(region) == 0 || len(region)%memory.PageSize != 0 || address(region)%memory.PageSize != 0 {
		return nil, fmt.Errorf("%w: a region of %d bytes at %#x is not whole pages", ErrBadRange, len(region), address(region))
	}
	if o.BudgetBytes == 0 {
		o.BudgetBytes = uint64(len(region)) + chunkBytes
	}
	return &Process{region: region, base: newBaselines(o.Baseline, o.BudgetBytes), draining: newLineSet(true)}, nil
}

// Method says how written pages are found.
func (p *Process) Method() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.written.open() {
		return "pagemap scan"
	}
	return "compare all"
}

// Arm implements Tracker.
func (p *Process) Arm() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.armed {
		return fmt.Errorf("%w: it is started", ErrState)
	}
	err := p.written.start(p.region)
	if errors.Is(err, errNoScan) {
		err = nil
	}
	if err != nil {
		return err
	}
	all := Range{SizeBytes: uint64(len(p.region))}
	for _, key := range (ranges{all}).chunkKeys() {
		p.base.reserve(key, p.base.kind == Twin)
	}
	if err := p.takeWritten(func(memory.GPA) {}); err != nil { // protects
		return errors.Join(err, p.written.stop(p.region))
	}
	for at := memory.GPA(0); at < all.end(); at += memory.PageSize {
		p.compare(at)
	}
	p.armed, p.began, p.draining = true, true, newLineSet(true)
	return nil
}

// compare looks at one page.
func (p *Process) compare(at memory.GPA) Page {
	return p.base.update(p.base.chunks[chunkOf(at)], at, p.region[at:at+memory.PageSize])
}

// takeWritten calls fn with each page that was written since the last call, and protects it again
// before.
func (p *Process) takeWritten(fn func(at memory.GPA)) error {
	if p.written.open() {
		return p.written.take(p.region, fn)
	}
	for at := range uint64(len(p.region) / memory.PageSize) {
		fn(memory.GPA(at * memory.PageSize))
	}
	return nil
}

func (p *Process) look() error {
	return p.takeWritten(func(at memory.GPA) {
		if found := p.compare(at); found.Lines != 0 {
			p.draining.add(found)
		}
	})
}

// Harvest implements Tracker.
func (p *Process) Harvest(max int, emit func(Page)) (more bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.began {
		return false, fmt.Errorf("%w: it was never started", ErrState)
	}
	if p.armed && p.draining.sizePages == 0 {
		if err := p.look(); err != nil {
			return false, err
		}
	}
	return p.draining.drain(max, emit), nil
}

// Stop implements Tracker.
func (p *Process) Stop() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.armed {
		return fmt.Errorf("%w: it is not started", ErrState)
	}
	err := p.look()
	p.armed = false
	for key := range p.base.chunks {
		p.base.free(key)
	}
	return errors.Join(err, p.written.stop(p.region))
}
