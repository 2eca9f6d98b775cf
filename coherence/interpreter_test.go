package coherence

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// interpreter drives a System by lines of text, for scripts and for the
// simulation, whose failures are therefore scripts.
type interpreter struct {
	system *System
	out    strings.Builder
	known  int // messages in flight that are not the current command's
	fault  fault
}

var errUsage = errors.New("bad command")

// do runs one command and writes what was sent and what happened.
func (in *interpreter) do(command string) error {
	words := strings.Fields(command)
	name, args := words[0], words[1:]
	if name == "cache" {
		return in.configure(args)
	}
	if in.system == nil {
		return fmt.Errorf("%w: first of all, cache", errUsage)
	}
	in.known = len(in.system.inflight)
	err := in.dispatch(name, args)
	for _, m := range in.system.inflight[in.known:] {
		fmt.Fprintf(&in.out, "> %v\n", m)
	}
	for _, e := range in.system.effects {
		fmt.Fprintf(&in.out, "%v\n", e)
	}
	return err
}

func (in *interpreter) configure(args []string) error {
	c := Config{Caches: 1, Sets: 1, Ways: 1, Versions: true}
	for _, a := range args {
		key, value, _ := strings.Cut(a, "=")
		n, err := strconv.Atoi(value)
		switch key {
		case "caches":
			c.Caches = n
		case "sets":
			c.Sets = n
		case "ways":
			c.Ways = n
		case "scan":
			c.Scan = n
		case "seed":
			c.Seed = uint64(n)
		case "policy":
			i := slices.Index([]string{"lru", "plru", "random"}, value)
			if i < 0 {
				return fmt.Errorf("%w: %s", errUsage, a)
			}
			c.Replacement, err = Replacement(i), nil
		default:
			return fmt.Errorf("%w: %s", errUsage, a)
		}
		if err != nil {
			return err
		}
	}
	s, err := NewSystem(c)
	if err != nil {
		return err
	}
	s.fault = in.fault
	in.system = s
	return nil
}

func (in *interpreter) dispatch(name string, args []string) error {
	s := in.system
	switch name {
	case "load", "store", "evict":
		n, err := argument(args, 0, parseNode)
		if err != nil {
			return err
		}
		line, err := argument(args, 1, parseLine)
		if err != nil {
			return err
		}
		switch name {
		case "load":
			return s.Access(n, Load, line)
		case "store":
			return s.Access(n, Store, line)
		}
		return s.Evict(n, line)
	case "ioread", "iowrite":
		line, err := argument(args, 0, parseLine)
		if err != nil {
			return err
		}
		if name == "ioread" {
			return s.IORead(line)
		}
		return s.IOWrite(line)
	case "expect", "arrive":
		return in.arrival(name, args)
	case "refetch":
		s.Refetch()
		return nil
	case "deliver":
		return in.deliver(args)
	case "step":
		return in.step(args)
	case "settle":
		return in.settle()
	case "tick":
		return s.Tick()
	case "flush":
		return s.Flush()
	case "show":
		in.show()
		return nil
	}
	return in.regionCommand(name, args)
}

func (in *interpreter) regionCommand(name string, args []string) error {
	id, err := argument(args, 0, func(a string) (RegionID, error) {
		n, err := strconv.ParseUint(a, 10, 64)
		return RegionID(n), err
	})
	if err != nil {
		return err
	}
	args = args[1:]
	switch name {
	case "region":
		var ranges []Range
		for _, a := range args {
			r, err := parseRange(a)
			if err != nil {
				return err
			}
			ranges = append(ranges, r)
		}
		return in.system.AddRegion(id, ranges...)
	case "remove":
		return in.system.RemoveRegion(id)
	case "start":
		return in.system.StartRegion(id)
	case "stop":
		return in.system.StopRegion(id)
	case "harvest":
		snoop, limit := true, 0
		for _, a := range args {
			if a == "nosnoop" {
				snoop = false
			} else if n, found := strings.CutPrefix(a, "max="); found {
				if limit, err = strconv.Atoi(n); err != nil {
					return err
				}
			} else {
				return fmt.Errorf("%w: %s", errUsage, a)
			}
		}
		return in.system.Harvest(id, snoop, limit)
	}
	return fmt.Errorf("%w: %s", errUsage, name)
}

// arrival: expect FIRST-LAST, arrive FIRST-LAST, of any pages.
func (in *interpreter) arrival(name string, args []string) error {
	r, err := argument(args, 0, parseRange)
	if err != nil {
		return err
	}
	masks := map[uint64]uint64{}
	for line := r.First; line <= r.last(); line++ {
		masks[line.Page()] |= line.bit()
	}
	pages := sortedPages(masks)
	if name == "expect" {
		return in.system.Expect(pages...)
	}
	for i := range pages {
		stored, err := in.system.Arrive(pages[i])
		if err != nil {
			return err
		}
		pages[i].Mask = stored
	}
	fmt.Fprintf(&in.out, "stored %s\n", formatLines(slices.DeleteFunc(pages, func(p PageMask) bool { return p.Mask == 0 })))
	return nil
}

// deliver: FROM->TO [K], the K-th message (from 0) on that link.
func (in *interpreter) deliver(args []string) error {
	link, err := argument(args, 0, func(a string) (string, error) { return a, nil })
	if err != nil {
		return err
	}
	k := 0
	if len(args) > 1 {
		if k, err = strconv.Atoi(args[1]); err != nil {
			return err
		}
	}
	for i, m := range in.system.inflight {
		if linkOf(m) == link {
			if k--; k >= 0 {
				continue
			}
			err := in.system.Deliver(i)
			if !errors.Is(err, ErrBusy) {
				in.known--
			}
			return err
		}
	}
	return fmt.Errorf("%w: on %s", ErrNoMessage, link)
}

// step: FROM->TO KIND LINE [I|S|E|M] [dirty], a message of nobody's sending.
func (in *interpreter) step(args []string) error {
	if len(args) < 3 {
		return fmt.Errorf("%w: step needs a link, kind and line", errUsage)
	}
	from, to, _ := strings.Cut(args[0], "->")
	var m Message
	var err1, err2, err3 error
	m.From, err1 = parseNode(from)
	m.To, err2 = parseNode(to)
	m.Line, err3 = parseLine(args[2])
	for kind, name := range kindNames {
		if name == args[1] {
			m.Kind = kind
		}
	}
	for _, a := range args[3:] {
		if a == "dirty" {
			m.Dirty = true
		} else {
			m.State = LineState(strings.Index("ISEM", a))
		}
	}
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	return in.system.Step(m)
}

func linkOf(m Message) string { return fmt.Sprintf("%v->%v", m.From, m.To) }

func (in *interpreter) settle() error {
	in.known = 0
	for len(in.system.inflight) > 0 {
		fmt.Fprintf(&in.out, "< %v\n", in.system.inflight[0])
		if err := in.system.Deliver(0); err != nil {
			return err
		}
	}
	return nil
}

// show writes who holds what: caches (in brackets what is leaving them), home.
func (in *interpreter) show() {
	s := in.system
	for _, c := range s.caches {
		fmt.Fprintf(&in.out, "%v:", c.id)
		for _, x := range c.slots {
			if x.state != Invalid {
				fmt.Fprintf(&in.out, " %d=%v v%d", x.line, x.state, x.version)
			}
		}
		for _, l := range c.leaving {
			fmt.Fprintf(&in.out, " [%d=%v v%d]", l.line, l.state, l.version)
		}
		in.out.WriteByte('\n')
	}
	in.out.WriteString("home:")
	for _, line := range slices.Sorted(maps.Keys(s.home.entries)) {
		e := s.home.entries[line]
		fmt.Fprintf(&in.out, " %d=%v", line, slices.Collect(e.holders.all()))
		if e.owner != Home {
			in.out.WriteString(" owned")
		}
		if e.now.kind != 0 {
			fmt.Fprintf(&in.out, " busy with %v, %d wait", e.now.kind, len(e.queue))
		}
	}
	in.out.WriteByte('\n')
}

func argument[T any](args []string, i int, parse func(string) (T, error)) (T, error) {
	if i >= len(args) {
		var zero T
		return zero, fmt.Errorf("%w: argument %d is missing", errUsage, i+1)
	}
	return parse(args[i])
}

func parseNode(a string) (Node, error) {
	if a == "home" {
		return Home, nil
	}
	n, err := strconv.Atoi(strings.TrimPrefix(a, "c"))
	return Node(n), err
}

// parseRange: FIRST-LAST, or one line.
func parseRange(a string) (Range, error) {
	first, last, found := strings.Cut(a, "-")
	if !found {
		last = first
	}
	f, err1 := parseLine(first)
	l, err2 := parseLine(last)
	return Range{First: f, Count: uint64(l-f) + 1}, errors.Join(err1, err2)
}

func parseLine(a string) (Line, error) {
	n, err := strconv.ParseUint(a, 10, 64)
	return Line(n), err
}
