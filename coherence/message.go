package coherence

import "fmt"

// Node is an agent on the interconnect: caches are 0 to Config.Caches-1.
type Node int

// Home is the device, the home node of all lines.
const Home Node = -1

func (n Node) String() string {
	if n == Home {
		return "home"
	}
	return fmt.Sprintf("c%d", int(n))
}

// LineState is the state of a line in a cache.
type LineState uint8

// The states, in rising order of what they permit. A cache may make an
// Exclusive line Modified without a message.
const (
	Invalid LineState = iota
	Shared
	Exclusive
	Modified
)

func (s LineState) String() string {
	if s > Modified {
		return fmt.Sprintf("LineState(%d)", uint8(s))
	}
	return "ISEM"[s : s+1]
}

// Kind is the kind of a message. Zero is none.
type Kind uint8

// From a cache to home.
const (
	GetS    Kind = 1 + iota // read: asks for Shared or Exclusive
	GetM                    // read for ownership, or upgrade: asks for Modified
	PutS                    // a Shared line was evicted
	PutE                    // an Exclusive line was evicted unwritten
	PutM                    // a Modified line was evicted: its data
	SnpResp                 // the answer to a snoop, with data if it was Modified
)

// From home to a cache.
const (
	Data      Kind = 16 + iota // answers GetS and GetM: State is granted
	Ack                        // answers a Put
	SnpShared                  // keep no more than Shared, send what was written
	SnpInv                     // keep nothing, send what was written
)

// Requests of the device to itself; they are never messages.
const (
	ioRead  Kind = 32 + iota // uncached read by an IO agent
	ioWrite                  // uncached write by an IO agent
	clean                    // makes the owner write back and keep no more than Shared
)

var kindNames = map[Kind]string{
	GetS: "GetS", GetM: "GetM", PutS: "PutS", PutE: "PutE", PutM: "PutM", SnpResp: "SnpResp",
	Data: "Data", Ack: "Ack", SnpShared: "SnpShared", SnpInv: "SnpInv",
	ioRead: "ioread", ioWrite: "iowrite", clean: "clean",
}

func (k Kind) String() string {
	if name, ok := kindNames[k]; ok {
		return name
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// Message is what two nodes say about a line. Fields that a kind does not
// name are zero.
type Message struct {
	Kind     Kind
	From, To Node
	Line     Line
	State    LineState // Data: what is granted. SnpResp: what the cache keeps
	Dirty    bool      // SnpResp: the line was Modified, Version is its data
	Version  uint64    // Data, PutM, SnpResp with Dirty
}

func (m Message) String() string {
	s := fmt.Sprintf("%v->%v %v %d", m.From, m.To, m.Kind, m.Line)
	switch m.Kind {
	case Data:
		s += fmt.Sprintf(" %v v%d", m.State, m.Version)
	case PutM:
		s += fmt.Sprintf(" v%d", m.Version)
	case SnpResp:
		if m.Dirty {
			s += fmt.Sprintf(" dirty v%d", m.Version)
		}
		s += fmt.Sprintf(" keeps %v", m.State)
	}
	return s
}
