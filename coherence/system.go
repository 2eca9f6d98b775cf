package coherence

import (
	"fmt"
	"slices"
)

// System is the caches, the device and the messages between them, driven
// message by message: the pure core. A call does what its node does at once
// and leaves messages in flight; Deliver lets one arrive. It is not safe for
// concurrent use. Device is the easier driver.
type System struct {
	*port
	config Config
	caches []*cache
	home   *directory
}

// NewSystem returns a system with empty caches and no regions.
func NewSystem(c Config) (*System, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	s := &System{port: &port{}, config: c}
	for n := range c.Caches {
		s.caches = append(s.caches, newCache(c, Node(n), s.port))
	}
	s.home = newDirectory(c, s.port)
	return s, nil
}

func (s *System) cacheOf(n Node, line Line) (*cache, error) {
	if n < 0 || int(n) >= len(s.caches) {
		return nil, fmt.Errorf("%w: %d of %d", ErrCache, int(n), len(s.caches))
	}
	return s.caches[n], checkLine(line)
}

func checkLine(line Line) error {
	if line > lastLine {
		return fmt.Errorf("%w: line %d", ErrRange, line)
	}
	return nil
}

// Access begins an access of a cache's processor; AccessDone tells its end,
// at once on a hit. ErrBusy while the processor's access before is not done.
func (s *System) Access(n Node, op Op, line Line) error {
	c, err := s.cacheOf(n, line)
	if err != nil {
		return err
	}
	if op != Load && op != Store {
		return fmt.Errorf("%w: %v", ErrProtocol, op)
	}
	return c.access(op, line)
}

// Evict makes a cache give up a line, if it holds it, as a flush instruction
// or prefetcher would. ErrBusy if its processor awaits that line.
func (s *System) Evict(n Node, line Line) error {
	c, err := s.cacheOf(n, line)
	if err != nil {
		return err
	}
	return c.evictLine(line)
}

// IORead begins an uncached read of a line by an IO agent: a cache's copy that
// was written comes home first. ReadDone tells its end.
func (s *System) IORead(line Line) error { return s.io(ioRead, line) }

// IOWrite begins an uncached write of a line, or a part of it, by an IO agent:
// a cache's copy that was written comes home first, no cache keeps one, and the
// line is marked in its regions. WriteDone tells its end.
func (s *System) IOWrite(line Line) error { return s.io(ioWrite, line) }

func (s *System) io(kind Kind, line Line) error {
	if err := checkLine(line); err != nil {
		return err
	}
	return s.home.submit(line, request{kind: kind, from: Home})
}

// AddRegion starts to track ranges as region id. Ranges, and regions, may
// overlap. Stores from before that are still in a cache will be reported too.
func (s *System) AddRegion(id RegionID, ranges ...Range) error { return s.home.addRegion(id, ranges) }

// RemoveRegion forgets a region and what is pending in it. A harvest or stop
// of it that is under way ends with Aborted.
func (s *System) RemoveRegion(id RegionID) error { return s.home.removeRegion(id) }

// StopRegion ends tracking once all that was stored before is pending;
// StopDone tells when. What is pending stays, to be harvested.
func (s *System) StopRegion(id RegionID) error { return s.home.stopRegion(id) }

// StartRegion tracks a stopped region again.
func (s *System) StartRegion(id RegionID) error { return s.home.startRegion(id) }

// Harvest begins to collect the lines of a region that were written since the
// harvest before; HarvestDone brings them, up to limit pages if it is not zero.
// With snoop, caches first write back every line of the region that they may
// have written; without, such lines are missed until they come home of
// themselves. ErrBusy while a harvest or stop of the region is under way.
func (s *System) Harvest(id RegionID, snoop bool, limit int) error {
	return s.home.harvest(id, snoop, limit)
}

// Flush begins to have all written lines come home; FlushDone tells its end.
func (s *System) Flush() error { return s.home.flush() }

// Tick lets the device do its share of scanning, Config.Scan lines.
func (s *System) Tick() error { return s.home.tick() }

// InFlight returns the messages on the way, in the order they were sent. They
// belong to the system, and are valid until the next call.
func (s *System) InFlight() []Message { return s.inflight }

// Deliver lets the i-th of InFlight arrive. A message from home waits for
// those that home sent before to the same cache (ErrBusy): that link is in
// order, and the protocol needs it. Messages to home may pass each other.
func (s *System) Deliver(i int) error {
	if i < 0 || i >= len(s.inflight) {
		return fmt.Errorf("%w: %d of %d in flight", ErrNoMessage, i, len(s.inflight))
	}
	m := s.inflight[i]
	if m.From == Home && s.fault != overtakes {
		if slices.ContainsFunc(s.inflight[:i], func(before Message) bool { return before.From == Home && before.To == m.To }) {
			return fmt.Errorf("%w: %v is not the first on its link", ErrBusy, m)
		}
	}
	s.inflight = slices.Delete(s.inflight, i, i+1)
	return s.Step(m)
}

// Step handles a message as its receiver does on arrival. Deliver calls it;
// a shell that has nodes of its own may as well. A message that no such node
// can have sent is dropped with ErrCache, ErrRange or ErrProtocol. Home looks
// at a request when its turn comes, so that an ErrProtocol may be about one
// that arrived before and had to wait; it names the message.
func (s *System) Step(m Message) error {
	if m.From == Home {
		c, err := s.cacheOf(m.To, m.Line)
		if err != nil {
			return err
		}
		return c.step(m)
	}
	if _, err := s.cacheOf(m.From, m.Line); err != nil {
		return err
	}
	if m.To != Home {
		return unexpected(m, "caches do not talk to each other")
	}
	return s.home.step(m)
}

// Settle delivers, in the order of sending, until nothing is in flight.
func (s *System) Settle() error {
	for i := 0; i < len(s.inflight); i++ {
		if err := s.Step(s.inflight[i]); err != nil {
			s.inflight = slices.Delete(s.inflight, 0, i+1)
			return err
		}
	}
	s.inflight = s.inflight[:0]
	return nil
}

// Effects returns the effects since it was last called. They are the caller's.
func (s *System) Effects() []Effect {
	e := s.effects
	s.effects = nil
	return e
}

// Stats returns the counters.
func (s *System) Stats() Stats { return s.stats }
