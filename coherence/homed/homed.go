package homed

import (
	"context"
	"fmt"
	"math/bits"
	"sync"

	"github.com/fineline-vmm/fineline/coherence"
	"github.com/fineline-vmm/fineline/memory"
)

// Memory is guest memory whose absent pages come by the line. Its methods are safe for concurrent use, except that a vCPU
// has one Access at a time.
type Memory struct {
	guest  *memory.Guest
	demand *memory.Demand

	mu      sync.Mutex // after the Demand's locks
	core    *coherence.System
	waits   []chan struct{} // by vCPU: closed when its access is performed
	fetches []coherence.Line
	done    bool // PageDone has come since it was last looked at

	ready     chan struct{} // capacity 1: fetches is not empty
	completed chan struct{} // capacity 1: a page was completed
}

// New has the absent pages of a Demand of guest come by the line, to vCPUs with the caches that c describes. The
// guest must not run yet. The Demand stays the caller's; pages are filled through the Memory from now on. Errors are those of
// coherence.NewSystem.
func New(guest *memory.Guest, demand *memory.Demand, c coherence.Config) (*Memory, error) {
	core, err := coherence.NewSystem(c)
	if err != nil {
		return nil, err
	}
	var pages []coherence.PageMask
	demand.Absent().Range(func(gpa memory.GPA) bool {
		pages = append(pages, coherence.PageMask{Page: uint64(gpa) / memory.PageSize, Mask: ^uint64(0)})
		return true
	})
	if err := core.Expect(pages...); err != nil {
		return nil, err
	}
	return &Memory{
		guest: guest, demand: demand, core: core, waits: make([]chan struct{}, c.Caches),
		ready: make(chan struct{}, 1), completed: make(chan struct{}, 1),
	}, nil
}

// Access does a vCPU's access to RAM of an absent page, on the vCPU's thread, and waits for the lines that it
// needs. False: nothing was done, since the page is not absent (any more). The range is within one page. Errors are those of
// the Demand, whose memory is lost then.
func (m *Memory) Access(cpu int, gpa memory.GPA, data []byte, write bool) (bool, error) {
	if !m.demand.Has(gpa) {
		return false, nil
	}
	op := coherence.Load
	if write {
		op = coherence.Store
	}
	first, last := gpa/coherence.LineSize, (gpa+memory.GPA(len(data))-1)/coherence.LineSize
	for line := first; line <= last; line++ {
		if err := m.perform(cpu, op, coherence.Line(line)); err != nil {
			return true, err
		}
	}
	off := gpa % memory.PageSize
	absent, err := m.demand.Lend(gpa-off, write, func(page []byte) {
		if write {
			copy(page[off:], data)
		} else {
			copy(data, page[off:])
		}
	})
	return absent, err
}

// perform has the core do an access to a line, and returns when it is done.
func (m *Memory) perform(cpu int, op coherence.Op, line coherence.Line) error {
	done := make(chan struct{})
	if err := m.begin(cpu, op, line, done); err != nil {
		return err
	}
	select {
	case <-done:
		return nil
	default:
		return m.demand.AwaitPart(memory.GPA(line*coherence.LineSize), done)
	}
}

func (m *Memory) begin(cpu int, op coherence.Op, line coherence.Line, done chan struct{}) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if cpu < 0 || cpu >= len(m.waits) {
		return fmt.Errorf("%w: vCPU %d", coherence.ErrCache, cpu)
	}
	if m.waits[cpu] != nil { // one whose memory was lost
		return fmt.Errorf("%w: vCPU %d waits for another line", coherence.ErrBusy, cpu)
	}
	m.waits[cpu] = done
	if err := m.core.Access(coherence.Node(cpu), op, line); err != nil {
		return err
	}
	m.settle()
	return nil
}

// settle acts on what the core says. Preconditions: mu held, the bytes of what has arrived are in place.
func (m *Memory) settle() {
	if err := m.core.Settle(); err != nil {
		panic(fmt.Sprintf("homed: the device's core: %v", err)) // all its messages are its own
	}
	for _, e := range m.core.Effects() {
		switch e.Kind {
		case coherence.AccessDone:
			close(m.waits[e.Node])
			m.waits[e.Node] = nil
		case coherence.Fetch:
			m.fetches = append(m.fetches, e.Line)
			signal(m.ready)
		case coherence.PageDone:
			m.done = true
		}
	}
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default: // it has been told
	}
}

// NextLine returns the next absent line that a vCPU waits for, each once until RepeatLines. It is the line's physical
// address divided by coherence.LineSize. The error is the context's cause.
func (m *Memory) NextLine(ctx context.Context) (uint64, error) {
	for {
		if line, ok := m.pop(); ok {
			return uint64(line), nil
		}
		select {
		case <-m.ready:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

func (m *Memory) pop() (line coherence.Line, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.fetches) > 0 && !ok {
		line, m.fetches = m.fetches[0], m.fetches[1:]
		ok = m.lacks(line)
	}
	return line, ok
}

func (m *Memory) lacks(line coherence.Line) bool {
	return m.core.Lacks(line.Page())>>(line%coherence.PageLines)&1 != 0
}

// RepeatLines has NextLine report all lines again that are waited for: a connection was lost.
func (m *Memory) RepeatLines() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fetches = nil
	m.core.Refetch()
	m.settle()
}

// FillLine brings one line. False: it was here already.
func (m *Memory) FillLine(line uint64, content []byte) (taken bool, err error) {
	if len(content) != coherence.LineSize {
		return false, fmt.Errorf("%w: a line of %d bytes", memory.ErrMisaligned, len(content))
	}
	at := coherence.Line(line)
	gpa := memory.GPA(at.Page() * memory.PageSize)
	done := false
	_, err = m.demand.Lend(gpa, false, func(page []byte) {
		taken, done = m.take(coherence.PageMask{Page: at.Page(), Mask: 1 << (at % coherence.PageLines)}, func(uint64) {
			copy(page[at%coherence.PageLines*coherence.LineSize:], content)
		})
	})
	if err != nil || !done {
		return taken, err
	}
	_, err = m.demand.Fill(gpa, func([]byte) error { return nil }) // its last line
	signal(m.completed)
	return taken, err
}

// take has the core take lines, calls store with the mask of those whose bytes must be put into memory, if there are any, and
// lets go who waited. done: the page is complete.
func (m *Memory) take(p coherence.PageMask, store func(mask uint64)) (taken, done bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	mask, err := m.core.Arrive(p)
	if err != nil {
		panic(fmt.Sprintf("homed: the device's core: %v", err)) // of a message of its own
	}
	if mask != 0 {
		store(mask)
	}
	m.done = false
	m.settle()
	return mask != 0, m.done
}

// Fill is Demand.Fill that leaves alone the lines that are here. fn gets a copy of the page, in which these are as the guest
// has made them.
func (m *Memory) Fill(gpa memory.GPA, fn func(page []byte) error) (bool, error) {
	var fresh [memory.PageSize]byte
	filled, err := m.demand.Fill(gpa, func(page []byte) error {
		copy(fresh[:], page)
		if err := fn(fresh[:]); err != nil {
			return err
		}
		m.take(coherence.PageMask{Page: uint64(gpa) / memory.PageSize, Mask: ^uint64(0)}, func(mask uint64) {
			for ; mask != 0; mask &= mask - 1 {
				off := bits.TrailingZeros64(mask) * coherence.LineSize
				copy(page[off:off+coherence.LineSize], fresh[off:])
			}
		})
		return nil
	})
	if filled {
		signal(m.completed)
	}
	return filled, err
}

// FillRun is Fill of pages in a row, one after the other: each joins lines that are here already.
func (m *Memory) FillRun(gpa memory.GPA, count int, fn func(i int, page []byte) error) (filled uint64, err error) {
	for i := range count {
		ok, err := m.Fill(gpa+memory.GPA(i)*memory.PageSize, func(page []byte) error { return fn(i, page) })
		if err != nil {
			return filled, err
		}
		if ok {
			filled |= 1 << i
		}
	}
	return filled, nil
}

// Completed yields after pages were completed, once for any number of them.
func (m *Memory) Completed() <-chan struct{} { return m.completed }

// LacksLine reports whether a line is absent.
func (m *Memory) LacksLine(line uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lacks(coherence.Line(line))
}

// Next is Demand.Next: the pages that others than vCPUs wait for, or that have their slot.
func (m *Memory) Next(ctx context.Context) (memory.GPA, error) { return m.demand.Next(ctx) }

// Tell is memory.Demand's.
func (m *Memory) Tell(fn func(memory.GPA)) { m.demand.Tell(fn) }

// Has is Demand.Has.
func (m *Memory) Has(gpa memory.GPA) bool { return m.demand.Has(gpa) }

// Len is Demand.Len.
func (m *Memory) Len() uint64 { return m.demand.Len() }

// Absent is Demand.Absent: pages of which a line is absent.
func (m *Memory) Absent() *memory.PageSet { return m.demand.Absent() }
