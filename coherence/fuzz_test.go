package coherence

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

// FuzzTape lets the fuzzer write the simulation's tape.
func FuzzTape(f *testing.F) {
	for seed := range uint64(4) {
		var data []byte
		for _, step := range randomTape(seed, 100) {
			data = append(data, step[:]...)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var tape tape
		for ; len(data) >= 4; data = data[4:] {
			tape = append(tape, [4]byte(data))
		}
		if _, err := simulate(tape, sound); err != nil {
			t.Fatal(report(tape, sound))
		}
	})
}

// FuzzStep sends messages of anybody's making among true ones. They may make
// caches disagree, since a cache is believed; they must not panic, be refused
// with anything but the errors promised, or break the directory's own order.
func FuzzStep(f *testing.F) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 0))
		data := make([]byte, 6*300)
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := NewSystem(Config{Caches: 3, Sets: 2, Ways: 1, Scan: 1, Versions: true})
		if err != nil {
			t.Fatal(err)
		}
		for ; len(data) >= 6; data = data[6:] {
			if err := hostileStep(s, [6]byte(data)); err != nil && !promised(err) {
				t.Fatal(err)
			}
			checkDirectory(t, s.home)
		}
		for len(s.InFlight()) > 0 { // each refusal drops a message, so this ends
			if err := s.Settle(); err != nil && !errors.Is(err, ErrProtocol) {
				t.Fatal(err)
			}
		}
		checkDirectory(t, s.home)
	})
}

func promised(err error) bool {
	for _, class := range []error{ErrCache, ErrRange, ErrBusy, ErrRegion, ErrNoMessage, ErrProtocol} {
		if errors.Is(err, class) {
			return true
		}
	}
	return false
}

func hostileStep(s *System, b [6]byte) error {
	node, line := Node(b[1]%6)-2, Line(b[2]%8)
	if b[2] > 250 {
		line = lastLine + Line(b[3])
	}
	id := RegionID(b[1] % 3)
	switch b[0] % 12 {
	case 0:
		return s.Access(node, Op(b[3]%4), line)
	case 1:
		return s.Evict(node, line)
	case 2:
		return s.IOWrite(line)
	case 3:
		return s.IORead(line)
	case 4:
		return s.Deliver(int(b[1]) - 1)
	case 5:
		return s.AddRegion(id, Range{line, uint64(b[3]) << (b[4] % 64)})
	case 6:
		return s.RemoveRegion(id)
	case 7:
		return s.Harvest(id, b[3]%2 == 0, int(b[4])-1)
	case 8:
		return errors.Join(s.StopRegion(id), s.StartRegion(id))
	case 9:
		return errors.Join(s.Tick(), s.Flush())
	}
	m := Message{Kind: Kind(b[3] % 36), From: Home, To: node, Line: line, State: LineState(b[4] % 5), Dirty: b[5]%2 == 1, Version: uint64(b[5])}
	if b[0]%12 == 10 {
		m.From, m.To = node, Node(b[5]%4)-1
	}
	return s.Step(m)
}

// checkDirectory checks what the directory needs for its own work.
func checkDirectory(t *testing.T, d *directory) {
	t.Helper()
	owned := 0
	for e := d.owned.front; e != nil; e = e.next {
		owned++
		if d.entries[e.line] != e || e.owner == Home {
			t.Fatalf("line %d is in the list of owned lines: %+v", e.line, e)
		}
	}
	for line, e := range d.entries {
		if e.owner != Home {
			owned--
			only := nodeSet{}
			only.add(e.owner)
			if e.holders != only {
				t.Fatalf("line %d: owner %v, holders %v", line, e.owner, e.holders)
			}
		}
		if e.now.kind == 0 && (len(e.queue) > 0 || e.holders.empty() || !e.awaiting.empty()) {
			t.Fatalf("line %d: idle with %d in the queue, holders %v, awaiting %v", line, len(e.queue), e.holders, e.awaiting)
		}
		asked := nodeSet{}
		for _, r := range append(slices.Clone(e.queue), e.now) {
			if r.kind < Data && r.kind != 0 {
				if asked.has(r.from) {
					t.Fatalf("line %d: two requests of %v", line, r.from)
				}
				asked.add(r.from)
			}
		}
	}
	if owned != 0 {
		t.Fatalf("%d owned lines are not listed", -owned)
	}
}
