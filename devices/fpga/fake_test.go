package fpga

import (
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fineline-vmm/fineline/coherence/track"
)

const fakeMaxRanges = 70000

// fakeEngine tracks nothing: pages to harvest are what a test puts there. It fails the test when the device
// breaks the promises of Context: one call at a time, one Close, nothing after it.
type fakeEngine struct {
	t      testing.TB
	inRAM  func(track.Range) bool
	inside atomic.Int32

	mu      sync.Mutex
	live    []*fakeContext
	pages   []track.Page // what new contexts have to report
	err     error        // what every call returns
	hook    func(op string)
	snoops  []bool
	emitted int // by the last Harvest
}

var errFake = errors.New("the fake's disk is full")

func (e *fakeEngine) Modes() []track.Mode { return []track.Mode{track.Diff, track.Homed} }

func (e *fakeEngine) MaxRanges() int { return fakeMaxRanges }

// call is the begin of each method; the result ends it.
func (e *fakeEngine) call(op string) (end func()) {
	if e.inside.Add(1) != 1 {
		e.t.Errorf("%s: two calls at a time", op)
	}
	e.mu.Lock()
	hook := e.hook
	e.mu.Unlock()
	if hook != nil {
		hook(op)
	}
	return func() { e.inside.Add(-1) }
}

func (e *fakeEngine) set(change func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change()
}

func (e *fakeEngine) fail() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.err
}

func (e *fakeEngine) contexts() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.live)
}

func (e *fakeEngine) add(c *fakeContext) *fakeContext {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.live) == MaxContexts {
		e.t.Error("more contexts than the device may have")
	}
	e.live = append(e.live, c)
	return c
}

func (e *fakeEngine) NewContext(o track.ContextOptions) (*fakeContext, error) {
	defer e.call("new")()
	if !slices.Contains(e.Modes(), o.Mode) {
		return nil, track.ErrBadMode
	}
	if err := e.fail(); err != nil {
		return nil, err
	}
	e.mu.Lock()
	pages := slices.Clone(e.pages)
	e.mu.Unlock()
	return e.add(&fakeContext{e: e, options: o, pages: pages}), nil
}

func (e *fakeEngine) RestoreContext(s track.ContextState) (*fakeContext, error) {
	defer e.call("restore")()
	if err := e.fail(); err != nil {
		return nil, err
	}
	c := &fakeContext{e: e, options: track.ContextOptions{Mode: s.Mode, CountBytes: s.CountBytes}, armed: s.Armed}
	if err := errors.Join(json.Unmarshal(s.Found, &c.pages), json.Unmarshal(s.Ranges, &c.ranges)); err != nil {
		return nil, err
	}
	return e.add(c), nil
}

type fakeContext struct {
	e       *fakeEngine
	options track.ContextOptions
	ranges  []track.Range
	armed   bool
	pages   []track.Page
	closed  bool
}

func (c *fakeContext) call(op string) func() {
	if c.closed {
		c.e.t.Errorf("%s of a closed context", op)
	}
	return c.e.call(op)
}

func (c *fakeContext) Register(ranges []track.Range) error {
	defer c.call("register")()
	for _, r := range ranges {
		if !c.e.inRAM(r) {
			return track.ErrBadRange
		}
	}
	if len(c.ranges)+len(ranges) > fakeMaxRanges {
		return track.ErrNoSpace
	}
	if err := c.e.fail(); err != nil {
		return err
	}
	c.ranges = append(c.ranges, ranges...)
	return nil
}

func (c *fakeContext) Unregister(ranges []track.Range) error {
	defer c.call("unregister")()
	for _, r := range ranges {
		if !slices.Contains(c.ranges, r) {
			return track.ErrNotRegistered
		}
	}
	c.ranges = slices.DeleteFunc(c.ranges, func(r track.Range) bool { return slices.Contains(ranges, r) })
	return c.e.fail()
}

func (c *fakeContext) Arm() error {
	defer c.call("arm")()
	c.armed = true
	return c.e.fail()
}

func (c *fakeContext) Stop() error {
	defer c.call("stop")()
	if !c.armed {
		c.e.t.Error("stop of a context that is not armed")
	}
	c.armed = false
	return c.e.fail()
}

func (c *fakeContext) Harvest(limit int, emit func(track.Page)) (bool, error) {
	return c.harvest(limit, true, emit)
}

func (c *fakeContext) HarvestUnsnooped(limit int, emit func(track.Page)) (bool, error) {
	if c.options.Mode != track.Homed {
		c.e.t.Errorf("no snoop of mode %s", c.options.Mode)
	}
	return c.harvest(limit, false, emit)
}

func (c *fakeContext) harvest(limit int, snoop bool, emit func(track.Page)) (bool, error) {
	defer c.call("harvest")()
	c.e.set(func() { c.e.snoops = append(c.e.snoops, snoop); c.e.emitted = 0 })
	n := min(limit, len(c.pages))
	for _, p := range c.pages[:n] {
		emit(p)
		c.e.set(func() { c.e.emitted++ })
	}
	c.pages = c.pages[n:]
	return len(c.pages) > 0, c.e.fail()
}

func (c *fakeContext) State() (track.ContextState, error) {
	defer c.call("state")()
	found, err := json.Marshal(c.pages)
	ranges, err2 := json.Marshal(c.ranges)
	return track.ContextState{
		Mode: c.options.Mode, CountBytes: c.options.CountBytes, Armed: c.armed, Ranges: ranges, Found: found,
	}, errors.Join(err, err2, c.e.fail())
}

func (c *fakeContext) Close() error {
	defer c.call("close")()
	c.closed = true
	c.e.mu.Lock()
	defer c.e.mu.Unlock()
	c.e.live = slices.DeleteFunc(c.e.live, func(o *fakeContext) bool { return o == c })
	return c.e.err
}
