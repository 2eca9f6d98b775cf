package track

import (
	"errors"
	"fmt"
	"slices"

	"github.com/fineline-vmm/fineline/coherence"
)

// ContextOptions choose how a context sees lines.
type ContextOptions struct {
	Mode Mode
	// CountBytes asks for Page.ChangedBytes, with Diff only; it needs twins, where the
	// budget allows them.
	CountBytes bool
	// Unlimited is for the host's own: its ranges are not among Options.MaxRanges.
	Unlimited bool
}

// Context is one consumer's view: ranges, and the lines of them that were written since it
// harvested them last. Contexts may overlap; each sees every line. Two Diff contexts share the baseline: a line
// that changed and changed back is reported to one if another harvested in between.
type Context struct {
	e    *Engine
	opts ContextOptions

	// Guarded by e.mu. In modes other than Diff they are written with exact.mu held, too, which then guards found.
	ranges   ranges
	armed    bool
	restored bool // to be armed by Engine.Resume
	began    bool // it was armed once: there may be something to harvest
	closed   bool
	found    *lineSet
	draining *lineSet           // what a harvest left out, guarded by e.mu alone: emit may store to memory
	region   coherence.RegionID // of the device's core; 0: none
}

var _ Tracker = (*Context)(nil)

// NewContext makes a context without ranges.
func (e *Engine) NewContext(o ContextOptions) (*Context, error) {
	if !slices.Contains(e.Modes(), o.Mode) || o.CountBytes && o.Mode != Diff {
		return nil, fmt.Errorf("%w: %s, counting bytes: %t", ErrBadMode, o.Mode, o.CountBytes)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c := &Context{e: e, opts: o, found: newLineSet(o.CountBytes), draining: newLineSet(o.CountBytes)}
	e.contexts = append(e.contexts, c)
	return c, nil
}

// Register adds whole lines, all or none; what is registered already stays. If the context is
// armed, so are they. Errors wrap ErrBadRange or ErrNoSpace.
func (c *Context) Register(list []Range) error {
	if err := check(c.e.mem, list); err != nil {
		return err
	}
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	return c.change(c.ranges.union(joined(list)))
}

// Unregister removes lines and forgets what was found in them. Lines that are not registered
// end it before anything is done: ErrNotRegistered.
func (c *Context) Unregister(list []Range) error {
	if err := check(c.e.mem, list); err != nil {
		return err
	}
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	gone := joined(list)
	if !c.ranges.contain(gone) {
		return ErrNotRegistered
	}
	return c.change(c.ranges.minus(gone))
}

// change makes next the ranges of the context, or fails and changes nothing. Preconditions: e.mu held.
func (c *Context) change(next ranges) error {
	before := c.ranges
	if err := c.admit(next); err != nil {
		return err
	}
	if !c.armed {
		c.replace(next)
		return nil
	}
	if c.opts.Mode == Diff {
		return c.changeDiff(before, next)
	}
	err := c.e.exact.replace(c, next)
	if err == nil {
		err = c.e.takeAccess()
	}
	if err != nil { // what was before did fit
		return errors.Join(err, c.e.exact.replace(c, before), c.e.setAccess())
	}
	c.replace(next)
	return nil
}

// admit checks the limits. Preconditions: e.mu held.
func (c *Context) admit(next ranges) error {
	e, exact, all := c.e, 0, 0
	for _, o := range e.contexts {
		mine := o.ranges
		if o == c {
			mine = next
		}
		if !o.opts.Unlimited {
			all += len(mine)
		}
		if o.opts.Mode != Diff {
			exact += len(mine)
		}
	}
	switch {
	case c.closed:
		return fmt.Errorf("%w: it is closed", ErrState)
	case !c.opts.Unlimited && all > e.opts.MaxRanges:
		return fmt.Errorf("%w: %d are the most", ErrNoSpace, e.opts.MaxRanges)
	case c.opts.Mode != Diff && exact > MaxExactRanges:
		return fmt.Errorf("%w: in modes other than diff %d are the most", ErrNoSpace, MaxExactRanges)
	}
	return nil
}

// replace changes the ranges and forgets what was found outside of them. Preconditions: e.mu held.
func (c *Context) replace(next ranges) {
	c.e.exact.mu.Lock()
	defer c.e.exact.mu.Unlock()
	c.setRanges(next)
}

// setRanges: both locks are held.
func (c *Context) setRanges(next ranges) {
	c.ranges = next
	c.found.keep(next)
	c.draining.keep(next)
}

// changeDiff takes the baselines of what is new. Preconditions: e.mu held, c.armed.
func (c *Context) changeDiff(before, next ranges) error {
	if err := c.e.begin(next.minus(before), c.opts.CountBytes); err != nil {
		return err
	}
	c.replace(next)
	if len(before.minus(next)) == 0 {
		return nil
	}
	return c.e.end()
}

// Arm implements Tracker; what was found before and not harvested is forgotten. An armed
// context is refused: ErrState.
func (c *Context) Arm() error {
	e := c.e
	e.mu.Lock()
	defer e.mu.Unlock()
	if c.armed || c.restored || c.closed {
		return fmt.Errorf("%w: it is started or closed", ErrState)
	}
	var err error
	if c.opts.Mode == Diff {
		err = e.begin(c.ranges, c.opts.CountBytes)
	} else {
		err = e.armExact(c)
	}
	if err != nil {
		return err
	}
	e.exact.mu.Lock()
	defer e.exact.mu.Unlock()
	c.found, c.draining = newLineSet(c.opts.CountBytes), newLineSet(c.opts.CountBytes)
	c.armed, c.began = true, true
	return nil
}

// Stop implements Tracker. A context that is not armed is refused: ErrState.
func (c *Context) Stop() error {
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	if !c.armed {
		return fmt.Errorf("%w: it is not started", ErrState)
	}
	return c.stop()
}

// stop disarms it. When the last look of Diff fails the context stays armed. Preconditions: e.mu held, c.armed.
func (c *Context) stop() error {
	e := c.e
	if c.opts.Mode != Diff {
		return e.disarmExact(c)
	}
	if err := e.look(); err != nil {
		return err
	}
	c.armed = false
	return e.end()
}

// Harvest implements Tracker. A context that was never armed is refused: ErrState. emit may store
// to guest memory and must not use the Engine.
func (c *Context) Harvest(max int, emit func(Page)) (more bool, err error) {
	return c.harvest(max, true, emit)
}

// HarvestUnsnooped is Harvest that leaves alone what the caches hold: a Homed context misses the
// lines that are pending there.
func (c *Context) HarvestUnsnooped(max int, emit func(Page)) (more bool, err error) {
	return c.harvest(max, false, emit)
}

func (c *Context) harvest(max int, snoop bool, emit func(Page)) (more bool, err error) {
	e := c.e
	e.mu.Lock()
	defer e.mu.Unlock()
	if !c.began || c.closed {
		return false, fmt.Errorf("%w: it was never started", ErrState)
	}
	if c.draining.sizePages == 0 {
		if err := c.look(snoop); err != nil {
			return false, err
		}
	}
	return c.draining.drain(max, emit), nil
}

// look finds what was written up to now and makes it ready to be drained. Preconditions: e.mu held,
// nothing to drain.
func (c *Context) look(snoop bool) error {
	e := c.e
	if c.armed && c.opts.Mode == Diff {
		if err := e.look(); err != nil {
			return err
		}
	}
	e.exact.mu.Lock()
	defer e.exact.mu.Unlock()
	if err := e.exact.harvest(c, snoop); err != nil {
		return err
	}
	c.found, c.draining = c.draining, c.found
	return nil
}

// Close stops and forgets the context. A second Close does nothing.
func (c *Context) Close() error {
	e := c.e
	e.mu.Lock()
	defer e.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	e.contexts = slices.DeleteFunc(e.contexts, func(o *Context) bool { return o == c })
	switch {
	case !c.armed:
		return nil
	case c.opts.Mode == Diff:
		c.armed = false
		return e.end()
	}
	return e.disarmExact(c)
}

// Ranges are the context's, in rising order, joined where they meet.
func (c *Context) Ranges() []Range {
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	return slices.Clone(c.ranges)
}
