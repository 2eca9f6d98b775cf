package tracktest

import (
	"sync"

	"github.com/fineline-vmm/fineline/guest/track/procmem"
)

// Process is an address space with mappings, as guest/track wants one, for any number of goroutines.
type Process struct {
	mu       sync.Mutex
	space    *Space
	mappings []procmem.Mapping
	ended    bool
	opened   int
}

// NewProcess returns a process with mappings, all of whose pages are present.
func NewProcess(m *Machine, mappings ...procmem.Mapping) *Process {
	p := &Process{space: NewSpace(m)}
	for _, x := range mappings {
		p.Map(x)
	}
	return p
}

// Map adds a mapping and touches its pages.
func (p *Process) Map(x procmem.Mapping) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mappings = append(p.mappings, x)
	for a := x.Start; a < x.End; a += pageBytes {
		p.space.Frame(a)
	}
}

// Do works on the address space.
func (p *Process) Do(work func(*Space)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	work(p.space)
}

// End is the process's end.
func (p *Process) End() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
}

// Open counts those who look at the process.
func (p *Process) Open() *Process {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.opened++
	return p
}

// Opened is how many have opened it and not closed it.
func (p *Process) Opened() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.opened
}

// Read reads the page table.
func (p *Process) Read(address uint64, entries []procmem.Entry) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return procmem.ErrGone
	}
	return p.space.Read(address, entries)
}

// Mappings is /proc/PID/maps.
func (p *Process) Mappings() ([]procmem.Mapping, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return nil, procmem.ErrGone
	}
	return append([]procmem.Mapping(nil), p.mappings...), nil
}

// Close undoes Open.
func (p *Process) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.opened--
	return nil
}
