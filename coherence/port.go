package coherence

// port is what a node has of the world: it sends messages, emits effects and
// counts. All nodes of a System share one, so that what they do has one order.
type port struct {
	inflight []Message // in the order of sending
	effects  []Effect
	stats    Stats
	fault    fault
}

func (p *port) send(m Message) { p.inflight = append(p.inflight, m) }

func (p *port) emit(e Effect) { p.effects = append(p.effects, e) }

// fault breaks the protocol in one way, to prove that the simulation finds it.
// Only tests set one.
type fault uint8

const (
	sound            fault = iota
	forgetsSnoop           // a harvest leaves out the first line that it should snoop
	answersEarly           // home grants a line before the snoops of its holders are answered
	staysWritable          // a cache keeps a line Exclusive after SnpShared: not armed again
	trustsStalePut         // home takes the data of an eviction that a snoop has overtaken
	unmarkedEviction       // home does not mark lines that come by eviction
	unmarkedIO             // home does not mark lines that IO agents write
	overtakes              // the links from home deliver in any order
	lateWins               // what arrives is stored though the line is here
	grantsAbsent           // home grants a line that is absent
	forgetsWaiter          // home does not go on with who waits when a line arrives
	faults
)

// answerEarly is what answersEarly does; reply then leaves out the answer in time.
func (d *directory) answerEarly(e *entry) {
	state := Shared
	switch e.now.kind {
	case GetM:
		state = Modified
	case GetS:
	default:
		return
	}
	d.reply(e, e.now.from, state)
	e.answered = true
}
