package coherence

import (
	"fmt"
	"slices"
)

// cache is a processor's cache with its controller. Its processor has one
// access outstanding at most.
type cache struct {
	*port
	id       Node
	ways     int
	setMask  Line
	slots    []slot // set by set
	replacer replacer
	miss     miss      // the outstanding access; op is zero if there is none
	leaving  []leaving // evicted lines whose Put is not acknowledged yet
}

type slot struct {
	line    Line
	version uint64
	state   LineState
}

type miss struct {
	op   Op
	line Line
	sent bool // false: waits for the acknowledgement of the line's own eviction
}

// leaving is an evicted line in the write-back buffer. A snoop may take its
// data; then its state is Invalid.
type leaving struct {
	line    Line
	version uint64
	state   LineState
}

func newCache(c Config, id Node, p *port) *cache {
	return &cache{
		port: p, id: id, ways: c.Ways, setMask: Line(c.Sets - 1),
		slots: make([]slot, c.Sets*c.Ways), replacer: newReplacer(c, id),
	}
}

func (c *cache) set(line Line) int { return int(line & c.setMask) }

// find returns the slot of a line that the cache holds, or nil.
func (c *cache) find(line Line) (held *slot, way int) {
	base := c.set(line) * c.ways
	for way := range c.ways {
		if s := &c.slots[base+way]; s.line == line && s.state != Invalid {
			return s, way
		}
	}
	return nil, 0
}

func (c *cache) findLeaving(line Line) int {
	return slices.IndexFunc(c.leaving, func(l leaving) bool { return l.line == line })
}

// access performs op at once if it hits, else asks home.
func (c *cache) access(op Op, line Line) error {
	if c.miss.op != 0 {
		return fmt.Errorf("%w: %v awaits its %v of line %d", ErrBusy, c.id, c.miss.op, c.miss.line)
	}
	s, way := c.find(line)
	if s != nil && (op == Load || s.state >= Exclusive) {
		c.stats.Hits++
		c.replacer.touch(c.set(line), way)
		c.perform(s, op, true)
		return nil
	}
	c.stats.Misses++
	if s != nil {
		c.stats.Upgrades++
	} else {
		c.makeRoom(line)
	}
	c.miss = miss{op: op, line: line}
	if c.findLeaving(line) < 0 {
		c.ask()
	}
	return nil
}

// perform does op on a line whose state permits it. Each store makes a new version.
func (c *cache) perform(s *slot, op Op, hit bool) {
	switch op {
	case Load:
		c.stats.Loads++
	case Store:
		c.stats.Stores++
		if s.state == Exclusive {
			c.stats.SilentUpgrades++
		}
		s.state = Modified
		s.version++
	}
	c.emit(Effect{Kind: AccessDone, Node: c.id, Op: op, Line: s.line, Version: s.version, Hit: hit})
}

func (c *cache) ask() {
	c.miss.sent = true
	kind := GetS
	if c.miss.op == Store {
		kind = GetM
	}
	c.send(Message{Kind: kind, From: c.id, To: Home, Line: c.miss.line})
}

// makeRoom evicts a line if the set of line is full. The way stays free until
// the outstanding access fills it, because there is no other.
func (c *cache) makeRoom(line Line) {
	if c.freeSlot(line) < 0 {
		set := c.set(line)
		c.evict(&c.slots[set*c.ways+c.replacer.victim(set)])
	}
}

// freeSlot returns a way of line's set that holds nothing, or -1.
func (c *cache) freeSlot(line Line) int {
	base := c.set(line) * c.ways
	return slices.IndexFunc(c.slots[base:base+c.ways], func(s slot) bool { return s.state == Invalid })
}

// evict moves a line to the write-back buffer and tells home.
func (c *cache) evict(s *slot) {
	m := Message{Kind: PutS, From: c.id, To: Home, Line: s.line}
	switch s.state {
	case Exclusive:
		m.Kind = PutE
	case Modified:
		m.Kind, m.Version = PutM, s.version
	}
	c.stats.Evictions++
	c.leaving = append(c.leaving, leaving(*s))
	*s = slot{}
	c.send(m)
}

// evictLine evicts a line of the shell's choice.
func (c *cache) evictLine(line Line) error {
	if c.miss.op != 0 && c.miss.line == line {
		return fmt.Errorf("%w: %v awaits its %v of line %d", ErrBusy, c.id, c.miss.op, line)
	}
	if s, _ := c.find(line); s != nil {
		c.evict(s)
	}
	return nil
}

// step handles a message from home.
func (c *cache) step(m Message) error {
	switch m.Kind {
	case Data:
		return c.fill(m)
	case Ack:
		return c.acknowledge(m)
	case SnpShared, SnpInv:
		return c.snoop(m)
	}
	return unexpected(m, "not for a cache")
}

// fill takes the line that the outstanding access waits for, and performs it.
func (c *cache) fill(m Message) error {
	if c.miss.op == 0 || !c.miss.sent || c.miss.line != m.Line {
		return unexpected(m, "not asked for")
	}
	if m.State > Modified || m.State == Invalid || (c.miss.op == Store) != (m.State == Modified) {
		return unexpected(m, "not the state asked for")
	}
	s, way := c.find(m.Line) // an upgrade that no snoop has overtaken
	if s == nil {
		way = c.freeSlot(m.Line)
		s = &c.slots[c.set(m.Line)*c.ways+way]
	}
	*s = slot{line: m.Line, version: m.Version, state: m.State}
	c.replacer.touch(c.set(m.Line), way)
	op := c.miss.op
	c.miss = miss{}
	c.perform(s, op, false)
	return nil
}

// acknowledge ends an eviction. An access to the same line waited for it, so
// that home never has two requests of one cache for one line.
func (c *cache) acknowledge(m Message) error {
	i := c.findLeaving(m.Line)
	if i < 0 {
		return unexpected(m, "nothing evicted")
	}
	c.leaving = slices.Delete(c.leaving, i, i+1)
	if c.miss.op != 0 && !c.miss.sent && c.miss.line == m.Line {
		c.ask()
	}
	return nil
}

// snoop answers at once, whatever the cache waits for: home waits for the
// answer, so nothing else may come before it.
func (c *cache) snoop(m Message) error {
	r := Message{Kind: SnpResp, From: c.id, To: Home, Line: m.Line}
	if i := c.findLeaving(m.Line); i >= 0 {
		// The eviction crosses the snoop. Home gets the data here, and will
		// find the Put stale.
		l := &c.leaving[i]
		r.Dirty, r.Version = taken(l.state, l.version)
		l.state = Invalid
		c.send(r)
		return nil
	}
	s, _ := c.find(m.Line)
	if s == nil || m.Kind == SnpShared && s.state < Exclusive {
		return unexpected(m, "line not held so")
	}
	r.Dirty, r.Version = taken(s.state, s.version)
	if m.Kind == SnpShared {
		c.stats.Downgrades++
		s.state, r.State = Shared, Shared
		if c.fault == staysWritable {
			s.state = Exclusive
		}
	} else {
		c.stats.Invalidations++
		if c.miss.op != 0 && c.miss.line == m.Line {
			c.stats.LostUpgrades++
		}
		*s = slot{}
	}
	c.send(r)
	return nil
}

// taken returns what a snoop takes from a copy: its data only if it was written.
func taken(s LineState, version uint64) (dirty bool, v uint64) {
	if s != Modified {
		return false, 0
	}
	return true, version
}
