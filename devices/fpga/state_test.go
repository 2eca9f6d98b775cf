package fpga

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"testing"

	"github.com/fineline-vmm/fineline/coherence/track"
	"github.com/fineline-vmm/fineline/devices/pci"
	"github.com/fineline-vmm/fineline/memory"
)

// saved pauses the device and takes its state through JSON.
func (r *rig) saved() (back State) {
	r.t.Helper()
	r.must(r.Pause(context.Background()))
	s, err := r.State()
	r.must(err)
	raw, err := json.Marshal(s)
	r.must(err)
	r.must(json.Unmarshal(raw, &back))
	return back
}

// move saves the machine into a new one, which runs; the old one is closed.
func (r *rig) move() *rig {
	r.t.Helper()
	s := r.saved()
	next := newRig(r.t)
	page := make([]byte, 4096)
	for _, region := range r.ram.Regions() {
		for off := uint64(0); off < region.SizeBytes; off += 4096 {
			r.must(r.ram.ReadAt(region.Base+memory.GPA(off), page))
			r.must(next.ram.WriteAt(region.Base+memory.GPA(off), page))
		}
	}
	r.must(next.Restore(s))
	if again := next.saved(); !reflect.DeepEqual(again, s) {
		r.t.Fatalf("state changed by restore:\n%+v\n%+v", s, again)
	}
	r.Close()
	next.put, next.taken = r.put, r.taken
	next.Resume()
	return next
}

// TestSaveRestore moves a machine with contexts in every state and commands in the ring that nobody has
// taken; they are executed at the destination, once.
func TestSaveRestore(t *testing.T) {
	r := started(t)
	r.eng.pages = pagesOf(3)
	r.store(listAt, []cRange{{0x8000, 64}, {0x9000, 128}})
	r.create(uint32(track.Diff) | createCountBytes)
	r.create(uint32(track.Homed))
	r.create(0)
	r.create(0)
	r.expect(statusOK, cCommand{Opcode: opDestroy, Context: 3})
	r.expect(statusOK, cCommand{Opcode: opRegister, Context: 1, Count: 2, Address: listAt})
	for _, id := range []uint32{1, 2} {
		r.expect(statusOK, cCommand{Opcode: opStart, Context: id})
	}
	r.expect(statusOK, cCommand{Opcode: opStop, Context: 2})
	r.expect(statusOK, cCommand{Opcode: opHarvest, Context: 1, Count: 1, Address: bufAt})

	r.must(r.Pause(context.Background()))
	r.queue(cCommand{Opcode: opCreate})
	r.queue(cCommand{Opcode: opStart, Context: 1})
	r.queue(cCommand{Opcode: opHarvest, Context: 1, Count: 9, Address: bufAt})
	r.queue(cCommand{Opcode: opStart, Context: 2})
	r.queue(cCommand{Opcode: opHarvest, Context: 2, Flags: harvestNoSnoop, Count: 9, Address: bufAt})
	r.queue(cCommand{Opcode: opHarvest, Context: 4, Count: 9, Address: bufAt})
	r.ring()
	r.want("taken while paused", r.get(regCmdTaken), 10)
	next := r.move()
	for i, want := range []cCompletion{
		{Result: 3, Context: 3}, {Status: uint32(errState), Context: 1}, {Result: 2, Context: 1},
		{Context: 2}, {Result: 3, Context: 2}, {Status: uint32(errState), Context: 4},
	} {
		got := next.complete()
		got.Sequence = 0
		if got != want {
			t.Errorf("completion %d: %+v, want %+v", i, got, want)
		}
	}
	c := next.eng.live[0]
	if !c.options.CountBytes || len(c.ranges) != 2 || !c.armed {
		t.Errorf("context 1: %+v", c)
	}
	next.expect(statusOK, cCommand{Opcode: opUnregister, Context: 1, Count: 2, Address: listAt})
}

// TestPauseWaits: a pause lets the running command end, or gives up and changes nothing.
func TestPauseWaits(t *testing.T) {
	r := started(t)
	reached, open := r.gate("new")
	r.queue(cCommand{Opcode: opCreate})
	r.queue(cCommand{Opcode: opCreate})
	r.ring()
	<-reached
	if r.pausedNow() {
		t.Fatal("paused while a command runs")
	}
	paused := make(chan error)
	go func() { paused <- r.Pause(context.Background()) }()
	close(open)
	r.must(<-paused)
	taken := r.get(regCmdTaken)
	r.must(r.Pause(context.Background())) // again is nothing
	r.want("completed", r.get(regCplPut), taken)
	r.Resume()
	r.Resume()
	r.complete()
	r.complete()
	if _, err := r.State(); !errors.Is(err, errNotPaused) {
		t.Errorf("state of a running device: %v", err)
	}
}

// TestSaveFails: the source goes on.
func TestSaveFails(t *testing.T) {
	r := started(t)
	r.create(0)
	r.must(r.Pause(context.Background()))
	r.eng.set(func() { r.eng.err = errFake })
	if _, err := r.State(); !errors.Is(err, errFake) {
		t.Errorf("state: %v", err)
	}
	r.eng.set(func() { r.eng.err = nil })
	r.Resume()
	r.want("context", r.create(0), 2)
}

func TestRestoreRefuses(t *testing.T) {
	a := started(t)
	a.create(0)
	good := a.saved()
	b := started(t)
	b.create(0)
	b.create(0)
	for name, change := range map[string]func(*State){
		"control":             func(s *State) { s.Control |= 4 },
		"error code":          func(s *State) { s.Error = 9 },
		"entries":             func(s *State) { s.CmdEntries = 7 },
		"ring":                func(s *State) { s.CplRing = ramEnd },
		"doorbell":            func(s *State) { s.Doorbell = s.CmdTaken + entries + 1 },
		"completions":         func(s *State) { s.CplTaken = s.CplPut + 1 },
		"lost completion":     func(s *State) { s.CmdTaken, s.Doorbell = 2, 2 },
		"held from nowhere":   func(s *State) { s.Held = &Completion{} },
		"held without room":   func(s *State) { s.Held, s.CplPut, s.CmdTaken, s.Doorbell, s.CplTaken = &Completion{}, 8, 9, 9, 0 },
		"disabled and in use": func(s *State) { s.Control = 0 },
		"disabled with contexts": func(s *State) {
			s.Control, s.Doorbell, s.CmdTaken, s.CplTaken, s.CplPut = 0, 0, 0, 0, 0
		},
		"held in error":           func(s *State) { s.Error, s.Held = ringBadIndex, &Completion{} },
		"flags":                   func(s *State) { s.Contexts[0].Flags = 9 },
		"armed and never started": func(s *State) { s.Contexts[0].Armed = true },
		"another function":        func(s *State) { s.Config.Registers[0] ^= 1 },
		"no registers":            func(s *State) { s.Config = pci.ConfigState{} },
	} {
		var bad State
		raw, err := json.Marshal(good)
		a.must(err)
		a.must(json.Unmarshal(raw, &bad))
		change(&bad)
		if err := b.Restore(bad); !errors.Is(err, ErrState) && !errors.Is(err, pci.ErrState) {
			t.Errorf("%s: %v", name, err)
		}
		b.want(name+": contexts", uint32(b.eng.contexts()), 2)
	}
	b.want("works as before", b.create(0), 3)

	// The engine refuses: disabled, paused, no context left.
	b.eng.set(func() { b.eng.err = errFake })
	if err := b.Restore(good); !errors.Is(err, errFake) {
		t.Errorf("engine: %v", err)
	}
	b.eng.set(func() { b.eng.err = nil })
	b.want("control", b.get(regControl), 0)
	b.want("contexts", uint32(b.eng.contexts()), 0)
	b.must(b.Restore(good))
	b.Resume()
	b.want("contexts", uint32(b.eng.contexts()), 1)
}

// TestReset is the machine's reset, with a command under way.
func TestReset(t *testing.T) {
	r := started(t)
	r.create(0)
	reached, open := r.gate("new")
	r.queue(cCommand{Opcode: opCreate})
	r.ring()
	<-reached
	done := make(chan struct{})
	go func() { defer close(done); r.Reset() }()
	close(open)
	<-done
	r.want("contexts", uint32(r.eng.contexts()), 0)
	if r.BusMaster() || r.MSIX().Enabled() {
		t.Error("configuration space is as before")
	}
	if r.mmio.Read(barAt, make([]byte, 4)) {
		t.Error("the BAR is still there")
	}
	if s := r.saved(); s.CmdRing != 0 || s.Control != 0 || s.Doorbell != 0 {
		t.Errorf("state after reset: %+v", s)
	}
	r.Reset() // of a paused device: it stays so
	if _, err := r.State(); err != nil {
		t.Error(err)
	}
	r.Resume()
	r.dropMessages()
	r.setup()
	r.enable()
	r.want("context", r.create(0), 1)
}

// TestClose: with commands waiting, with one running, while paused, and twice.
func TestClose(t *testing.T) {
	for name, prepare := range map[string]func(r *rig){
		"idle":   func(r *rig) {},
		"paused": func(r *rig) { r.must(r.Pause(context.Background())) },
		"busy": func(r *rig) {
			reached, open := r.gate("new")
			r.queue(cCommand{Opcode: opCreate})
			r.queue(cCommand{Opcode: opCreate})
			r.ring()
			<-reached
			go close(open)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := started(t)
			r.create(0)
			prepare(r)
			r.Close()
			r.want("contexts", uint32(r.eng.contexts()), 0)
			put := r.get(regCplPut)
			r.Close()
			r.Resume()
			r.Reset()
			r.setup()
			r.set(regControl, controlEnable)
			r.set(regDoorbell, 1)
			r.want("completions after Close", r.get(regCplPut), put)
			if err := r.Restore(State{}); !errors.Is(err, ErrState) {
				t.Errorf("restore: %v", err)
			}
		})
	}
}
