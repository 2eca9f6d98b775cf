package fpga

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/memory"
)

func newRand(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// poll takes the next completion without interrupts, as a driver that spins does.
func (r *rig) poll() cCompletion {
	at := memory.GPA(cplAt + r.taken%entries*completionBytes + sequenceOffset)
	for {
		n, err := r.ram.LoadUint32(at)
		r.must(err)
		if n == r.taken+1 {
			return r.take()
		}
		runtime.Gosched()
	}
}

// TestLoad: one vCPU streams commands, others read registers and switch bus mastering, the control
// thread pauses and saves; every command completes once, in order, and with a status of its own.
func TestLoad(t *testing.T) {
	r := started(t)
	r.set(regControl, controlEnable)
	r.eng.pages = pagesOf(300)
	rnd := newRand(t)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	loop := func(fn func(i uint32)) {
		wg.Go(func() {
			for i := uint32(0); ; i++ {
				select {
				case <-stop:
					return
				default:
					fn(i)
				}
			}
		})
	}
	loop(func(i uint32) {
		off := uint64(i) * 4 % 0x50
		r.get(off)
		if off != regControl && off != regDoorbell && off != regCplTaken {
			r.set(off, i)
		}
		runtime.Gosched()
	})
	loop(func(i uint32) { r.setConf(4, 2|i%2<<2); runtime.Gosched() })
	loop(func(uint32) {
		r.must(r.Pause(context.Background()))
		if _, err := r.State(); err != nil {
			t.Error(err)
		}
		r.Resume()
		r.Metrics()
		r.pausedNow()
	})
	r.store(listAt, make([]cRange, 300))
	commands := []struct {
		c  cCommand
		ok []status
	}{
		{cCommand{Opcode: opCreate}, []status{statusOK}},
		{cCommand{Opcode: opStart, Context: 1}, []status{statusOK}},
		{cCommand{Opcode: opHarvest, Context: 1, Count: 290, Address: bufAt}, []status{statusOK, errAddress}},
		{cCommand{Opcode: opRegister, Context: 1, Count: 300, Address: listAt}, []status{errAddress}},
		{cCommand{Opcode: opDestroy, Context: 1}, []status{statusOK}},
	}
	const rounds = 50
	for done := 0; done < rounds*len(commands); {
		for n := 1 + rnd.IntN(entries); n > 0 && int(r.put) < rounds*len(commands) && r.put-r.taken < entries; n-- {
			c := commands[int(r.put)%len(commands)].c
			c.Cookie = uint64(r.put)
			r.queue(c)
		}
		r.ring()
		for n := rnd.IntN(int(r.put-r.taken) + 1); n > 0; n-- {
			got := r.poll()
			want := commands[done%len(commands)]
			if got.Cookie != uint64(done) || got.Status != uint32(want.ok[0]) && got.Status != uint32(want.ok[len(want.ok)-1]) {
				t.Fatalf("completion %d: %+v of %+v", done, got, want.c)
			}
			done++
		}
	}
	close(stop)
	wg.Wait()
	if n := r.Metrics().Commands; n != rounds*uint64(len(commands)) {
		t.Errorf("%d commands", n)
	}
}

// TestResetsUnderLoad resets at any moment of a stream, with and without waiting for STATUS.
func TestResetsUnderLoad(t *testing.T) {
	r := started(t)
	r.eng.pages = pagesOf(200)
	rnd := newRand(t)
	for range 500 {
		for range entries / 2 {
			r.queue(cCommand{Opcode: opCreate})
			r.queue(cCommand{Opcode: opHarvest, Context: 1, Count: 100, Address: bufAt})
		}
		r.ring()
		for range rnd.IntN(20) {
			runtime.Gosched()
		}
		r.set(regControl, 0)
		if rnd.IntN(2) == 0 {
			for r.get(regStatus) != 0 {
				runtime.Gosched()
			}
			if n := r.eng.contexts(); n != 0 {
				t.Fatalf("%d contexts after STATUS said that all is over", n)
			}
			r.checkStill()
		}
		r.enable()
	}
	r.set(regControl, 0)
	r.settle()
	r.want("contexts", uint32(r.eng.contexts()), 0)
}

// checkStill fails when the completion ring changes after a reset is complete.
func (r *rig) checkStill() {
	clearRing := make([]byte, entries*completionBytes)
	r.must(r.ram.WriteAt(cplAt, clearRing))
	r.settle()
	got := make([]byte, len(clearRing))
	r.must(r.ram.ReadAt(cplAt, got))
	if string(got) != string(clearRing) {
		r.t.Error("stored after the reset was complete")
	}
}

// TestStateIsSmall: what the device adds to a machine's saved form.
func TestStateIsSmall(t *testing.T) {
	r := started(t)
	for range MaxContexts {
		r.create(0)
	}
	s := r.saved()
	raw, err := json.Marshal(s)
	r.must(err)
	if len(raw) > 8<<10 {
		t.Errorf("%d bytes: %s", len(raw), raw)
	}
}

// BenchmarkCommand is a doorbell, a command that fails at once, and its completion seen by polling.
func BenchmarkCommand(b *testing.B) {
	r := started(b)
	r.set(regControl, controlEnable)
	for b.Loop() {
		r.queue(cCommand{Opcode: opStart})
		r.ring()
		r.poll()
	}
}

// BenchmarkHarvest is a HARVEST of 65536 records, the engine's part being nothing.
func BenchmarkHarvest(b *testing.B) {
	r := newLargeRig(b)
	r.create(0)
	r.expect(statusOK, cCommand{Opcode: opStart, Context: 1})
	pages := pagesOf(maxCount)
	b.SetBytes(maxCount * recordBytes)
	for b.Loop() {
		r.eng.live[0].pages = pages
		r.expect(statusOK, cCommand{Opcode: opHarvest, Context: 1, Count: maxCount, Address: bufAt})
	}
}
