package track

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/fineline-vmm/fineline/coherence"
	"github.com/fineline-vmm/fineline/memory"
)

// exact is what sees single stores: of the guest, by its exits, and of the VMM, by
// memory.Guest.Observe. The lock is held for moments only: a vCPU waits for it.
type exact struct {
	watched atomic.Pointer[memory.PageSet] // pages of armed Stores and Homed contexts that exit; nil: no such context

	mu     sync.Mutex      // after Engine.mu
	armed  []*Context      // Stores and Homed
	blind  *memory.PageSet // given back, see Blind; nil: none
	given  int             // pages given back one by one, those of the processors apart
	device *coherence.Device
	next   coherence.RegionID
}

// Access does a guest's access to RAM that exited, as vCPU cpu's, and reports whether it
// is RAM at all.
func (e *Engine) Access(cpu int, gpa memory.GPA, data []byte, write bool) bool {
	if !e.mem.Contains(gpa, uint64(len(data))) {
		return false
	}
	if write {
		// The bytes first: who harvests the line finds them.
		_ = e.mem.WriteGuestStore(gpa, data)
	}
	e.Note(cpu, gpa, uint64(len(data)), write)
	if !write {
		_ = e.mem.ReadAt(gpa, data)
	}
	return true
}

// Note tells the contexts of a guest's access that exited and that somebody else has done.
func (e *Engine) Note(cpu int, gpa memory.GPA, sizeBytes uint64, write bool) {
	e.exact.access(gpa, sizeBytes, func(d *coherence.Device, line coherence.Line) ([]coherence.Effect, error) {
		if write {
			return d.Store(coherence.Node(cpu), line)
		}
		return d.Load(coherence.Node(cpu), line)
	}, write)
}

// stored is told of each store of the VMM.
func (e *Engine) stored(gpa memory.GPA, sizeBytes uint64) {
	e.exact.access(gpa, sizeBytes, (*coherence.Device).IOWrite, true)
}

// movement is what an access does to a line in the caches.
type movement func(*coherence.Device, coherence.Line) ([]coherence.Effect, error)

// access tells the contexts of a store, and moves the lines that are homed through the caches.
func (x *exact) access(gpa memory.GPA, sizeBytes uint64, move movement, store bool) {
	watched := x.watched.Load()
	if watched == nil {
		return
	}
	r := Range{gpa, sizeBytes}
	for page := gpa &^ (memory.PageSize - 1); page < r.end(); page += memory.PageSize {
		if watched.Has(page) {
			x.accessPage(page, linesOf(page, r), move, store)
		}
	}
}

func (x *exact) accessPage(page memory.GPA, lines uint64, move movement, store bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	var homed uint64
	for _, c := range x.armed {
		mine := lines & c.ranges.lines(page)
		switch {
		case c.region != 0:
			homed |= mine
		case store && mine != 0:
			c.found.add(Page{GPA: page, Lines: mine})
		}
	}
	for ; homed != 0; homed &= homed - 1 {
		line := coherence.Line(page/LineBytes) + coherence.Line(bits.TrailingZeros64(homed))
		if _, err := move(x.device, line); err != nil {
			panic(fmt.Sprintf("track: the device's core: %v", err)) // it knows all vCPUs and all lines
		}
	}
}

// armExact begins to see the stores to c's ranges. Preconditions: Engine.mu held.
func (e *Engine) armExact(c *Context) error {
	err := e.exact.enter(c)
	if err == nil {
		err = e.takeAccess()
	}
	if err != nil {
		return errors.Join(err, e.disarmExact(c))
	}
	return nil
}

// enter makes c one of the contexts that are told.
func (x *exact) enter(c *Context) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	c.armed = true
	x.armed = append(x.armed, c)
	return x.home(c)
}

// replace changes the ranges of an armed context.
func (x *exact) replace(c *Context, next ranges) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.unhome(c)
	c.ranges = next
	return x.home(c)
}

// leave tells nobody any more.
func (x *exact) leave() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.armed, x.device = nil, nil
}

// disarmExact ends it, after a last look. Preconditions: Engine.mu held.
func (e *Engine) disarmExact(c *Context) error {
	e.exact.drop(c)
	return e.setAccess()
}

func (x *exact) drop(c *Context) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.lookBlind(c)
	x.unhome(c)
	c.armed = false
	x.armed = slices.DeleteFunc(x.armed, func(o *Context) bool { return o == c })
}

// home makes a region of the device's core of a Homed context. Preconditions: x.mu held.
func (x *exact) home(c *Context) error {
	if c.opts.Mode != Homed || len(c.ranges) == 0 {
		return nil
	}
	if x.device == nil {
		device, err := coherence.New(c.e.opts.Caches)
		if err != nil {
			return err
		}
		x.device = device
	}
	lines := make([]coherence.Range, len(c.ranges))
	for i, r := range c.ranges {
		lines[i] = coherence.Range{First: coherence.Line(r.Base / LineBytes), Count: r.SizeBytes / LineBytes}
	}
	x.next++
	c.region = x.next
	if err := x.device.AddRegion(c.region, lines...); err != nil {
		return err
	}
	// What another context's caches hold was stored before this one was armed: have it home now.
	_, _, err := x.device.Harvest(c.region, true, 0)
	return err
}

// unhome takes what a Homed context's caches hold, and its region away. Preconditions: x.mu held.
func (x *exact) unhome(c *Context) {
	if c.region == 0 {
		return
	}
	if err := x.harvest(c, true); err != nil {
		panic(fmt.Sprintf("track: the device's core: %v", err))
	}
	if err := x.device.RemoveRegion(c.region); err != nil {
		panic(fmt.Sprintf("track: the device's core: %v", err))
	}
	c.region = 0
}

// harvest moves what the device has seen of a Homed context to what was found. Without a snoop
// it misses lines that are pending in a cache. Preconditions: x.mu held.
func (x *exact) harvest(c *Context, snoop bool) error {
	x.lookBlind(c)
	if c.region == 0 {
		return nil
	}
	pages, _, err := x.device.Harvest(c.region, snoop, 0)
	for _, p := range pages {
		c.found.add(Page{GPA: memory.GPA(p.Page * memory.PageSize), Lines: p.Mask})
	}
	return err
}

// lookBlind finds all lines of c in pages that are given back. Preconditions: x.mu held.
func (x *exact) lookBlind(c *Context) {
	if !c.armed || c.opts.Mode == Diff || x.blind == nil {
		return
	}
	x.blind.Range(func(page memory.GPA) bool {
		if lines := c.ranges.lines(page); lines != 0 {
			c.found.add(Page{GPA: page, Lines: lines, Inexact: true})
		}
		return true
	})
}

// Blind gives pages back to the guest whose instructions there cannot be served by exits: code that is
// fetched from an absent page, or an instruction that nobody can emulate. While a context watches
// them they are reported as a whole at each harvest. It reports false, and does
// nothing, when none of them exits.
func (e *Engine) Blind(pages []memory.GPA) (bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.exact.addBlind(e.mem, pages) {
		return false, nil
	}
	return true, e.setAccess()
}

// BlindAll is Blind of all pages that exit.
func (e *Engine) BlindAll() (bool, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	x := &e.exact
	x.mu.Lock()
	watched := x.watched.Load()
	any := watched != nil && watched.Len() > 0
	x.mu.Unlock()
	if !any {
		return false, nil
	}
	return true, e.giveBackAll()
}

// giveBackAll gives all watched pages back. Preconditions: e.mu held.
func (e *Engine) giveBackAll() error {
	x := &e.exact
	x.mu.Lock()
	x.blind = e.mem.NewPageSet()
	for _, c := range x.armed {
		c.ranges.addTo(x.blind)
	}
	x.mu.Unlock()
	return e.setAccess()
}

// maxBlindPages bounds the slots that pages cost which are given back one by one, beside maxReservedPages; beyond it all are.
const maxBlindPages = 512

func (x *exact) addBlind(mem *memory.Guest, pages []memory.GPA) (added bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	watched := x.watched.Load()
	for _, page := range pages {
		if watched == nil || !watched.Has(page) || x.blind != nil && x.blind.Has(page) {
			continue
		}
		if x.blind == nil {
			x.blind = mem.NewPageSet()
		}
		x.blind.Add(page)
		x.given++
		added = true
	}
	if added && x.given > maxBlindPages {
		x.blind.Union(watched)
	}
	return added
}

// maxReservedPages bounds the slots that the processors' own pages cost; beyond it all is given back.
const maxReservedPages = 1024

// blindReserved gives back what the processors use in ways that do not exit. Preconditions: Engine.mu held.
func (e *Engine) blindReserved() error {
	x := &e.exact
	if !x.watching() {
		return nil
	}
	reserved, err := e.slots.Reserved()
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	watched := e.mem.NewPageSet()
	for _, c := range x.armed {
		c.ranges.addTo(watched)
	}
	if reserved.Intersect(watched); reserved.Len() > maxReservedPages {
		reserved = watched
	}
	if x.blind == nil {
		x.blind = e.mem.NewPageSet()
	}
	x.blind.Union(reserved)
	return nil
}

// watching reports whether a context is armed.
func (x *exact) watching() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.armed) > 0
}

// takeAccess is setAccess where more exits than before. Preconditions: Engine.mu held.
func (e *Engine) takeAccess() error {
	if err := e.blindReserved(); err != nil {
		return err
	}
	return e.setAccess()
}

// setAccess gives the guest the access that the armed contexts need. Preconditions: Engine.mu held.
func (e *Engine) setAccess() error {
	if e.slots == nil {
		return nil
	}
	readOnly, absent := e.mem.NewPageSet(), e.mem.NewPageSet()
	x := &e.exact
	x.mu.Lock()
	for _, c := range x.armed {
		if c.opts.Mode == Homed {
			c.ranges.addTo(absent)
		} else {
			c.ranges.addTo(readOnly)
		}
	}
	watched := len(x.armed) > 0
	if !watched {
		x.blind, x.given = nil, 0
	}
	blind := x.blind
	x.mu.Unlock()
	was := x.watched.Load()
	if !watched && was == nil {
		return nil
	}
	if blind != nil { // it changes only with Engine.mu held
		readOnly.Subtract(blind)
		absent.Subtract(blind)
	}
	readOnly.Subtract(absent)
	if watched {
		// Seen before it exits: a store in between is told once more, never less.
		all := e.mem.NewPageSet()
		all.Union(readOnly)
		all.Union(absent)
		x.watched.Store(all)
		e.mem.Observe(e.stored)
	}
	if err := e.slots.SetAccess(readOnly, absent); err != nil {
		x.watched.Store(was)
		return fmt.Errorf("watch single stores: %w", err)
	}
	if !watched {
		e.mem.Observe(nil)
		x.watched.Store(nil)
	}
	return nil
}
