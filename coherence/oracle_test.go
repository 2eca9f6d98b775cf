package coherence

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// oracle knows what must hold. The version of a line is the number of its
// stores, so each store must make the one after the latest, and each load
// must see the latest.
type oracle struct {
	system  *System
	latest  map[Line]uint64
	memory  map[Line]uint64 // as the effects tell it
	regions map[RegionID]*oracleRegion

	absent  map[Line]bool // home lacks it
	fetched map[Line]bool // and it was asked for, since the last refetch

	// What came up.
	counts        map[EffectKind]int
	more          int
	sharedFetches int // lines that came for more than one who waited
}

// oracleRegion is a region with a client that, like a migration, reads each
// reported line from memory.
type oracleRegion struct {
	*region
	tracked bool
	seen    map[Line]uint64 // what the client has
	due     map[Line]uint64 // the latest store that was tracked
	// promised is due as it was when the last snooping harvest, or stop, began:
	// what the client must have when a harvest has given all. Nil: nothing.
	promised map[Line]uint64
}

func newOracle(s *System) oracle {
	return oracle{
		system: s, latest: map[Line]uint64{}, memory: map[Line]uint64{}, regions: map[RegionID]*oracleRegion{}, counts: map[EffectKind]int{},
		absent: map[Line]bool{}, fetched: map[Line]bool{},
	}
}

// observe checks a command that was accepted, what it did, and the state after it.
func (o *oracle) observe(command string) error {
	o.begun(command)
	for _, e := range o.system.Effects() {
		if err := o.effect(e); err != nil {
			return fmt.Errorf("%v: %w", e, err)
		}
	}
	for line := simFirst; line < simFirst+simLines; line++ {
		if err := o.line(line); err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
	}
	return nil
}

func (o *oracle) begun(command string) {
	words := strings.Fields(command)
	var id RegionID
	switch words[0] {
	case "region", "remove", "start", "stop", "harvest":
		id = RegionID(words[1][0] - '0')
	}
	r := o.regions[id]
	switch words[0] {
	case "region":
		created, err := o.system.home.region(id)
		if err != nil {
			panic(err)
		}
		o.regions[id] = &oracleRegion{
			region: created, tracked: true, seen: maps.Clone(o.memory), due: map[Line]uint64{},
		}
	case "remove":
		delete(o.regions, id)
	case "start":
		r.tracked = true
	case "expect", "arrive":
		r, err := parseRange(words[1])
		if err != nil {
			panic(err)
		}
		for line := r.First; line <= r.last(); line++ {
			o.arrival(words[0] == "arrive", line)
		}
	case "refetch":
		clear(o.fetched)
	case "stop":
		r.tracked = false
		r.promised = maps.Clone(r.due)
	case "harvest":
		if !slices.Contains(words, "nosnoop") {
			r.promised = maps.Clone(r.due)
		}
	}
}

// arrival of a line: the source's content is the version that it arrives with, before it is here and after.
func (o *oracle) arrival(here bool, line Line) {
	switch {
	case !here:
		o.absent[line] = true
		o.latest[line] = arrivedVersion
	case o.absent[line]:
		delete(o.absent, line)
		delete(o.fetched, line)
		o.memory[line] = arrivedVersion
	}
}

// fetch: one is enough, however many wait.
func (o *oracle) fetch(line Line) error {
	if !o.absent[line] || o.fetched[line] {
		return fmt.Errorf("absent %t, asked for before %t", o.absent[line], o.fetched[line])
	}
	o.fetched[line] = true
	return nil
}

func (o *oracle) waitsAreFetched() error {
	for line, e := range o.system.home.entries {
		if e.now.kind != 0 && !o.fetched[line] {
			return fmt.Errorf("line %d is waited for and nobody asked for it", line)
		}
		if len(e.queue) > 0 {
			o.sharedFetches++
		}
	}
	return nil
}

func (o *oracle) effect(e Effect) error {
	o.counts[e.Kind]++
	switch e.Kind {
	case Fetch:
		return o.fetch(e.Line)
	case AccessDone:
		if e.Op == Store {
			return o.stored(e)
		}
		return o.loaded(e)
	case ReadDone:
		return o.loaded(e)
	case WriteDone:
		o.memory[e.Line] = e.Version
		return o.stored(e)
	case WriteBack:
		if e.Version <= o.memory[e.Line] {
			return fmt.Errorf("memory has v%d", o.memory[e.Line])
		}
		o.memory[e.Line] = e.Version
	case HarvestDone:
		return o.harvested(o.regions[e.Region], e)
	}
	return nil
}

func (o *oracle) loaded(e Effect) error {
	if e.Version != o.latest[e.Line] {
		return fmt.Errorf("the last store made v%d", o.latest[e.Line])
	}
	return nil
}

func (o *oracle) stored(e Effect) error {
	if e.Version != o.latest[e.Line]+1 {
		return fmt.Errorf("stored over something else than the last store's v%d", o.latest[e.Line])
	}
	o.latest[e.Line] = e.Version
	for _, r := range o.regions {
		if r.tracked && r.contains(e.Line) {
			r.due[e.Line] = e.Version
		}
	}
	return nil
}

func (o *oracle) harvested(r *oracleRegion, e Effect) error {
	last := -1
	for line := range Lines(e.Pages) {
		now := o.memory[line]
		switch {
		case int(line) <= last:
			return fmt.Errorf("line %d after line %d", line, last)
		case !r.contains(line):
			return fmt.Errorf("line %d is not of the region", line)
		case now <= r.seen[line]:
			return fmt.Errorf("line %d was not written since it was reported with v%d", line, r.seen[line])
		}
		last = int(line)
		r.seen[line] = now
	}
	if e.More {
		o.more++
		return nil
	}
	for line, version := range r.promised {
		if r.seen[line] < version {
			return fmt.Errorf("lost: line %d v%d, which was stored before", line, version)
		}
	}
	r.promised = nil
	return nil
}

// line checks that the copies of a line agree: one writer or many readers, all
// with the latest data, and home knows who may write.
func (o *oracle) line(line Line) error {
	copies, writers, dirty := 0, 0, false
	look := func(c *cache, state LineState, version uint64) error {
		if state == Invalid {
			return nil
		}
		copies++
		if version != o.latest[line] {
			return fmt.Errorf("%v holds v%d, the last store made v%d", c.id, version, o.latest[line])
		}
		dirty = dirty || state == Modified
		if state >= Exclusive {
			writers++
			if e := o.system.home.entries[line]; e == nil || e.owner != c.id {
				return fmt.Errorf("%v may write, and home does not know", c.id)
			}
		}
		return nil
	}
	for _, c := range o.system.caches {
		if s, _ := c.find(line); s != nil {
			if err := look(c, s.state, s.version); err != nil {
				return err
			}
		}
		if i := c.findLeaving(line); i >= 0 && !o.acknowledged(c.id, line) {
			if err := look(c, c.leaving[i].state, c.leaving[i].version); err != nil {
				return err
			}
		}
	}
	if o.absent[line] && copies > 0 {
		return fmt.Errorf("%d copies of a line that is absent", copies)
	}
	if writers > 1 || writers == 1 && copies > 1 {
		return fmt.Errorf("%d copies, %d of them may be written", copies, writers)
	}
	dirty = dirty || slices.ContainsFunc(o.system.inflight, func(m Message) bool { return m.Line == line && m.Dirty })
	memory := o.memory[line]
	if memory != o.system.home.memory[line] {
		return fmt.Errorf("memory has v%d, its effects say v%d", o.system.home.memory[line], memory)
	}
	if !dirty && !o.absent[line] && memory != o.latest[line] {
		return fmt.Errorf("memory has v%d, the last store made v%d", memory, o.latest[line])
	}
	return nil
}

// acknowledged: home has taken back what still lies in the write-back buffer of n.
func (o *oracle) acknowledged(n Node, line Line) bool {
	return slices.ContainsFunc(o.system.inflight, func(m Message) bool { return m.Kind == Ack && m.To == n && m.Line == line })
}

// atRest checks a system in which nothing is in flight: nothing waits, and the
// directory is what the caches hold.
func (o *oracle) atRest() error {
	held := map[Line]nodeSet{}
	for _, c := range o.system.caches {
		if c.miss.op != 0 || len(c.leaving) > 0 {
			return fmt.Errorf("%v waits for ever: %+v, leaving %v", c.id, c.miss, c.leaving)
		}
		for _, s := range c.slots {
			if s.state != Invalid {
				set := held[s.line]
				set.add(c.id)
				held[s.line] = set
			}
		}
	}
	for line, e := range o.system.home.entries {
		if e.now.kind != 0 || len(e.queue) > 0 {
			return fmt.Errorf("home waits for ever: line %d, %v", line, e.now.kind)
		}
		if e.holders != held[line] {
			return fmt.Errorf("line %d: home takes %v for holders, they are %v", line, e.holders, held[line])
		}
		delete(held, line)
	}
	if len(held) > 0 {
		return fmt.Errorf("held, and home does not know: %v", held)
	}
	for id, r := range o.regions {
		if r.drain != nil || r.promised != nil {
			return fmt.Errorf("harvest of region %d without end", id)
		}
	}
	if o.system.home.owned.front != nil && len(o.system.home.entries) == 0 {
		return errors.New("lines owned by nobody")
	}
	return nil
}
