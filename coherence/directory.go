package coherence

import (
	"errors"
	"slices"
)

// directory is the home node: who holds which line, one transaction a line at a time.
type directory struct {
	*port
	scan    int
	entries map[Line]*entry   // of lines that are held or busy, no others
	free    []*entry          // for use again
	owned   entryList         // lines that a cache may have written
	memory  map[Line]uint64   // versions; nil unless Config.Versions
	regions []*region         // in order of their ids
	absent  map[uint64]uint64 // page to mask: lines that are not here yet; no cache holds one. See Expect
}

// entry is the directory's knowledge of a line. Invariant: a cache that holds
// the line Exclusive or Modified, or has data of it on the way to home, is the
// owner, and the only holder.
type entry struct {
	line       Line
	owner      Node // Home: no cache can have written the line
	holders    nodeSet
	now        request // the transaction under way; kind is zero if there is none
	awaiting   nodeSet // whose answers it waits for
	queue      []request
	answered   bool   // by the fault answersEarly
	prev, next *entry // in owned
}

// request is what a transaction is for.
type request struct {
	kind    Kind
	from    Node // Home: the device itself
	version uint64
	drain   *drain // of clean: who waits for it, or nil
}

func newDirectory(c Config, p *port) *directory {
	d := &directory{port: p, scan: c.Scan, entries: make(map[Line]*entry)}
	if c.Versions {
		d.memory = make(map[Line]uint64)
	}
	return d
}

// step handles a message from a cache.
func (d *directory) step(m Message) error {
	switch m.Kind {
	case GetS, GetM, PutS, PutE, PutM:
		e := d.entries[m.Line]
		if e != nil && (e.now.kind != 0 && e.now.from == m.From || e.queued(m.From)) {
			return unexpected(m, "this cache's request before is not done")
		}
		return d.submit(m.Line, request{kind: m.Kind, from: m.From, version: m.Version})
	case SnpResp:
		return d.answer(m)
	}
	return unexpected(m, "not for home")
}

func (e *entry) queued(from Node) bool {
	return slices.ContainsFunc(e.queue, func(r request) bool { return r.from == from })
}

func (d *directory) submit(line Line, r request) error {
	e := d.entries[line]
	if e == nil {
		e = d.newEntry(line)
	}
	e.queue = append(e.queue, r)
	return d.advance(e)
}

// advance takes requests from the queue until one has to wait for answers.
func (d *directory) advance(e *entry) error {
	var errs error
	for e.now.kind == 0 && len(e.queue) > 0 {
		r := e.queue[0]
		e.queue = slices.Delete(e.queue, 0, 1)
		if err := e.check(r); err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		d.begin(e, r)
	}
	if e.now.kind == 0 && e.holders.empty() {
		d.release(e)
	}
	return errs
}

// check refuses what a cache that follows the protocol does not ask. It is done
// at a request's turn: when it arrives, an answer sent before it may be under way.
func (e *entry) check(r request) error {
	ok := true
	switch r.kind {
	case GetS:
		ok = !e.holders.has(r.from)
	case GetM:
		ok = e.owner != r.from
	case PutS:
		ok = e.owner != r.from
	case PutE, PutM:
		ok = e.owner == r.from || !e.holders.has(r.from) // not a holder: stale
	}
	if !ok {
		return unexpected(Message{Kind: r.kind, From: r.from, To: Home, Line: e.line, Version: r.version}, "contradicts the directory")
	}
	return nil
}

// begin sends the snoops that r needs; without any it is finished at once. If the line is absent it waits for
// that first, and then needs no snoop: there are no holders.
func (d *directory) begin(e *entry, r request) {
	e.now = r
	if d.awaitsLine(e.line, r) {
		d.fetch(e.line)
		return
	}
	switch r.kind {
	case GetS, ioRead, clean:
		if e.owner != Home {
			d.snoop(e, SnpShared, e.owner)
		}
	case GetM, ioWrite:
		for n := range e.holders.all() {
			if n != r.from {
				d.snoop(e, SnpInv, n)
			}
		}
	}
	if e.awaiting.empty() {
		d.finish(e)
	} else if d.fault == answersEarly {
		d.answerEarly(e)
	}
}

func (d *directory) snoop(e *entry, kind Kind, to Node) {
	d.stats.Snoops++
	e.awaiting.add(to)
	d.send(Message{Kind: kind, From: Home, To: to, Line: e.line})
}

// answer takes a cache's answer to a snoop.
func (d *directory) answer(m Message) error {
	e := d.entries[m.Line]
	if e == nil || !e.awaiting.has(m.From) {
		return unexpected(m, "not snooped")
	}
	invalidates := e.now.kind == GetM || e.now.kind == ioWrite
	if m.State > Shared || m.State == Shared && invalidates || m.Dirty && e.owner != m.From {
		return unexpected(m, "not an answer to this snoop")
	}
	e.awaiting.remove(m.From)
	if m.Dirty {
		d.stats.WriteBacksBySnoop++
		d.writeBack(m.Line, m.Version, m.From, SnpResp)
	}
	d.disown(e)
	if m.State == Invalid {
		e.holders.remove(m.From)
	}
	if !e.awaiting.empty() {
		return nil
	}
	d.finish(e)
	return d.advance(e)
}

// finish does what the transaction is for, all answers being there.
func (d *directory) finish(e *entry) {
	r := e.now
	e.now = request{}
	switch r.kind {
	case GetS:
		d.grantRead(e, r.from)
	case GetM:
		e.holders.add(r.from) // the only one: the others have answered SnpInv
		d.own(e, r.from)
		d.reply(e, r.from, Modified)
	case PutS, PutE, PutM:
		d.put(e, r)
	case ioRead:
		d.stats.IOReads++
		d.emit(Effect{Kind: ReadDone, Line: e.line, Version: d.memory[e.line]})
	case ioWrite:
		d.stats.IOWrites++
		d.setVersion(e.line, d.memory[e.line]+1)
		if d.fault != unmarkedIO {
			d.mark(e.line)
		}
		d.emit(Effect{Kind: WriteDone, Line: e.line, Version: d.memory[e.line]})
	case clean:
		d.drained(r.drain)
	}
}

// grantRead gives the line to a reader, Exclusive if nobody else has it.
func (d *directory) grantRead(e *entry, to Node) {
	state := Shared
	if e.holders.empty() {
		state = Exclusive
		d.own(e, to)
	}
	e.holders.add(to)
	d.reply(e, to, state)
}

// put takes back an evicted line. It is stale if a snoop came first: then its
// data came with the answer, and somebody may have written the line since.
func (d *directory) put(e *entry, r request) {
	held := e.holders.has(r.from)
	if !held {
		d.stats.StalePuts++
	}
	if r.kind == PutM && (held || d.fault == trustsStalePut) {
		d.stats.WriteBacksByEviction++
		d.writeBack(e.line, r.version, r.from, PutM)
	}
	if held {
		e.holders.remove(r.from)
		d.disown(e)
	}
	d.send(Message{Kind: Ack, From: Home, To: r.from, Line: e.line})
}

// writeBack is the event that the device exists for: written data came home.
func (d *directory) writeBack(line Line, version uint64, from Node, via Kind) {
	d.setVersion(line, version)
	if via != PutM || d.fault != unmarkedEviction {
		d.mark(line)
	}
	d.emit(Effect{Kind: WriteBack, Node: from, Line: line, Version: version, Via: via})
}

func (d *directory) setVersion(line Line, version uint64) {
	if d.memory != nil {
		d.memory[line] = version
	}
}

// reply sends the data, unless a fault has sent it already.
func (d *directory) reply(e *entry, to Node, state LineState) {
	if e.answered {
		e.answered = false
		return
	}
	d.send(Message{Kind: Data, From: Home, To: to, Line: e.line, State: state, Version: d.memory[e.line]})
}

func (d *directory) own(e *entry, n Node) {
	if e.owner == Home {
		d.owned.pushBack(e)
	}
	e.owner = n
}

func (d *directory) disown(e *entry) {
	if e.owner != Home {
		d.owned.remove(e)
	}
	e.owner = Home
}

func (d *directory) newEntry(line Line) *entry {
	var e *entry
	if n := len(d.free); n > 0 {
		e, d.free = d.free[n-1], d.free[:n-1]
	} else {
		e = new(entry)
	}
	e.line, e.owner = line, Home
	d.entries[line] = e
	return e
}

func (d *directory) release(e *entry) {
	delete(d.entries, e.line)
	d.free = append(d.free, e)
}
