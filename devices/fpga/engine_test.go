package fpga

import (
	"context"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/fineline-vmm/fineline/coherence/track"
	"github.com/fineline-vmm/fineline/devices/pci"
	"github.com/fineline-vmm/fineline/memory"
)

// noGuest is the dirty log of a guest that stores nothing: the tests' stores are the VMM's.
type noGuest struct{}

func (noGuest) Start() error                  { return nil }
func (noGuest) Collect(*memory.PageSet) error { return nil }
func (noGuest) Stop() error                   { return nil }

// trackerRig is a rig over a real engine, which has mode Diff here.
func trackerRig(t *testing.T) (*rig, *track.Engine) {
	r := newRig(t)
	e := track.NewEngine(r.ram, noGuest{}, nil, track.Options{})
	fake := r.Device
	var err error
	r.Device, err = New(r.ram, e, Options{
		Signal: func(_ uint64, data uint32) { r.msi <- data },
		Log:    func(err error) { r.logs <- err },
	})
	r.must(err)
	t.Cleanup(func() {
		r.Device.Close()
		r.must(e.Close())
		r.Device = fake
	})
	r.must(r.mmio.Remove(ecamAt))
	root := pci.NewRoot(r.mmio, r.mmio)
	r.must(r.mmio.Insert(ecamAt, pci.ECAMBytes, root.ECAM()))
	r.must(root.Add(slot, r.Device))
	return r, e
}

// harvest returns the lines of all pages, a few records a command.
func (r *rig) harvest(id uint32) map[uint64]uint64 {
	r.t.Helper()
	pages := map[uint64]uint64{}
	for {
		done := r.expect(statusOK, cCommand{Opcode: opHarvest, Context: id, Count: 3, Address: bufAt})
		records := make([]cRecord, done.Result)
		r.load(bufAt, records)
		for _, x := range records {
			pages[x.Page] |= x.Lines
		}
		if done.Flags&completionMore == 0 {
			return pages
		}
	}
}

// TestTracker: random stores come back as lines, through the real engine, and after a move to another machine.
func TestTracker(t *testing.T) {
	r, e := trackerRig(t)
	r.setup()
	r.enable()
	r.want("features", r.get(regFeatures), 1<<track.Diff)
	r.want("ranges", r.get(regMaxRanges), track.DefaultMaxRanges)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	const base, size = 0x50040, 0xa000
	r.store(listAt, []cRange{{base, size}})
	id := r.create(0)
	r.expect(statusOK, cCommand{Opcode: opRegister, Context: id, Count: 1, Address: listAt})
	r.expect(statusOK, cCommand{Opcode: opStart, Context: id})
	stores := func() map[uint64]uint64 {
		want := map[uint64]uint64{}
		for range 1 + rnd.IntN(60) {
			at := 0x4f000 + rnd.Uint64N(0xd000)
			var b [1]byte
			r.must(r.ram.ReadAt(memory.GPA(at), b[:]))
			b[0]++
			r.must(r.ram.WriteAt(memory.GPA(at), b[:]))
			if at >= base && at < base+size {
				want[at&^4095] |= 1 << (at % 4096 / 64)
			}
		}
		return want
	}
	for range 20 {
		want := stores()
		if got := r.harvest(id); !reflect.DeepEqual(got, want) {
			t.Fatalf("harvest %#x, want %#x", got, want)
		}
	}
	want := stores()
	r.must(r.Pause(context.Background()))
	s, err := r.State()
	r.must(err)
	r.must(r.Restore(s))
	r.must(e.Resume())
	r.Resume()
	if got := r.harvest(id); !reflect.DeepEqual(got, want) {
		t.Errorf("after a restore: harvest %#x, want %#x", got, want)
	}
	r.expect(errFlags, cCommand{Opcode: opCreate, Flags: uint32(track.Stores)})
	r.store(listAt, []cRange{{base + size, 64}})
	r.expect(errNotRegistered, cCommand{Opcode: opUnregister, Context: id, Count: 1, Address: listAt})
	r.store(listAt, []cRange{{ramEnd - 64, 128}})
	r.expect(errAddress, cCommand{Opcode: opRegister, Context: id, Count: 1, Address: listAt})
	r.store(listAt, []cRange{{base, 32}})
	r.expect(errAddress, cCommand{Opcode: opRegister, Context: id, Count: 1, Address: listAt})
	if len(r.logs) != 0 {
		t.Errorf("log: %v", <-r.logs)
	}
}

// TestOwnStores: the device's records in a tracked page are written lines, as those of any DMA.
func TestOwnStores(t *testing.T) {
	r, _ := trackerRig(t)
	r.setup()
	r.enable()
	r.store(listAt, []cRange{{bufAt, 4096}})
	id := r.create(0)
	r.expect(statusOK, cCommand{Opcode: opRegister, Context: id, Count: 1, Address: listAt})
	r.expect(statusOK, cCommand{Opcode: opStart, Context: id})
	r.store(bufAt+0x800, uint64(1))
	if got := r.harvest(id); got[bufAt] != 1<<32 {
		t.Errorf("harvest %#x", got)
	}
	if got := r.harvest(id); got[bufAt] != 1 {
		t.Errorf("the record's own line: %#x", got)
	}
}
