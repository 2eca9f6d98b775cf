package fpga

import (
	"context"
	"testing"
)

// TestRingsWrap goes round both rings, and their counts round 2^32.
func TestRingsWrap(t *testing.T) {
	r := started(t)
	for range 5 * entries {
		r.expect(errContext, cCommand{Opcode: opStart})
	}
	r.must(r.Pause(context.Background()))
	s, err := r.State()
	r.must(err)
	const near = 1<<32 - 3*entries
	s.Doorbell, s.CmdTaken, s.CplTaken, s.CplPut = near, near, near, near
	r.must(r.Restore(s))
	r.put, r.taken = near, near
	r.Resume()
	for range 5 * entries {
		r.expect(errContext, cCommand{Opcode: opStart})
	}
	r.want("put", r.get(regCplPut), 2*entries)
	r.want("taken", r.get(regCmdTaken), 2*entries)
}

// TestFullCompletionRing: nothing is overwritten, no command is taken; each that the guest takes lets one
// more through.
func TestFullCompletionRing(t *testing.T) {
	r := started(t)
	for i := range 2 * uint64(entries) {
		if i == entries {
			r.ring()
			r.settle()
		}
		r.queue(cCommand{Opcode: opStart, Cookie: i})
	}
	r.ring()
	r.settle()
	r.want("taken", r.get(regCmdTaken), entries)
	r.want("put", r.get(regCplPut), entries)
	for i := range 2 * uint64(entries) {
		if done := r.complete(); done.Cookie != i {
			t.Fatalf("completion %d has cookie %d", i, done.Cookie)
		}
	}
	r.want("taken", r.get(regCmdTaken), 2*entries)
	if len(r.msi) != 0 {
		t.Error("more messages than completions")
	}
}

func TestInterruptsOff(t *testing.T) {
	r := started(t)
	r.set(regControl, controlEnable)
	r.queue(cCommand{Opcode: opStart})
	r.ring()
	r.settle()
	r.want("status", r.take().Status, uint32(errContext))
	r.set(regControl, controlEnable|controlInterrupt)
	r.settle()
	if len(r.msi) != 0 {
		t.Error("a message")
	}
	r.expect(errContext, cCommand{Opcode: opStart})
}

// gate stops the worker inside an engine's call until it is opened.
func (r *rig) gate(op string) (reached, open chan struct{}) {
	reached, open = make(chan struct{}), make(chan struct{})
	r.eng.set(func() {
		r.eng.hook = func(o string) {
			if o == op {
				close(reached)
				<-open
				r.eng.set(func() { r.eng.hook = nil })
			}
		}
	})
	return reached, open
}

// TestResetInTheMiddle resets while each kind of command runs: the write returns, nothing is stored, all
// contexts end, and STATUS says when.
func TestResetInTheMiddle(t *testing.T) {
	for op, c := range map[string]cCommand{
		"new":      {Opcode: opCreate},
		"register": {Opcode: opRegister, Context: 1, Count: 1, Address: listAt},
		"harvest":  {Opcode: opHarvest, Context: 1, Count: 9, Address: bufAt},
		"close":    {Opcode: opDestroy, Context: 1},
	} {
		for _, again := range []bool{false, true} {
			t.Run(op, func(t *testing.T) {
				r := started(t)
				r.eng.pages = pagesOf(9)
				r.create(0)
				r.create(0)
				r.expect(statusOK, cCommand{Opcode: opStart, Context: 1})
				r.store(listAt, []cRange{{0x8000, 64}})
				reached, open := r.gate(op)
				r.queue(c)
				r.queue(cCommand{Opcode: opCreate})
				r.ring()
				<-reached
				r.set(regControl, 0)
				r.want("status while a command runs", r.get(regStatus), statusEnabled)
				r.want("commands taken", r.get(regCmdTaken), 0)
				r.want("completions put", r.get(regCplPut), 0)
				if again {
					r.must(r.ram.WriteAt(cplAt, make([]byte, entries*completionBytes)))
					r.enable()
					r.queue(cCommand{Opcode: opCreate, Cookie: 77})
					r.ring()
				}
				close(open)
				if again {
					if done := r.complete(); done.Cookie != 77 || done.Result != 1 {
						t.Errorf("first completion after the reset: %+v", done)
					}
					r.want("contexts", uint32(r.eng.contexts()), 1)
				} else {
					r.settle()
					r.want("status", r.get(regStatus), 0)
					r.want("contexts", uint32(r.eng.contexts()), 0)
					r.want("completions put", r.get(regCplPut), 0)
				}
				var records [9]cRecord
				if r.load(bufAt, &records); records != [9]cRecord{} {
					t.Error("records after the reset")
				}
				if len(r.msi) != 0 {
					t.Error("a message after the reset")
				}
			})
		}
	}
}

// TestResetWithContexts: STATUS tells when the last context has ended.
func TestResetWithContexts(t *testing.T) {
	r := started(t)
	r.create(0)
	reached, open := r.gate("close")
	r.set(regControl, 0)
	<-reached
	r.want("status", r.get(regStatus), statusEnabled)
	close(open)
	r.settle()
	r.want("status", r.get(regStatus), 0)
	if n := r.Metrics().Resets; n != 1 {
		t.Errorf("%d resets", n)
	}
}

// TestErrorInTheMiddle: after a ring error even the running command has no completion.
func TestErrorInTheMiddle(t *testing.T) {
	r := started(t)
	reached, open := r.gate("new")
	r.queue(cCommand{Opcode: opCreate})
	r.queue(cCommand{Opcode: opCreate})
	r.ring()
	<-reached
	r.set(regDoorbell, 100)
	close(open)
	r.settle()
	r.want("error", r.get(regError), ringBadIndex)
	r.want("put", r.get(regCplPut), 0)
	r.want("taken", r.get(regCmdTaken), 1)
	r.set(regControl, 0)
	r.settle()
	r.want("contexts", uint32(r.eng.contexts()), 0)
}

// TestBusMaster: without it the device stores nothing and reads nothing; with it, it goes on.
func TestBusMaster(t *testing.T) {
	r := started(t)
	r.setConf(4, 2)
	r.queue(cCommand{Opcode: opCreate})
	r.ring()
	r.settle()
	r.want("taken", r.get(regCmdTaken), 0)
	r.want("status", r.get(regStatus), statusEnabled)
	r.setConf(4, 6)
	r.want("result", uint32(r.complete().Result), 1)
}

// TestBusMasterInTheMiddle: a completion waits, a transfer fails.
func TestBusMasterInTheMiddle(t *testing.T) {
	r := started(t)
	r.eng.pages = pagesOf(9)
	r.create(0)
	r.expect(statusOK, cCommand{Opcode: opStart, Context: 1})
	reached, open := r.gate("harvest")
	r.queue(cCommand{Opcode: opHarvest, Context: 1, Count: 9, Address: bufAt})
	r.queue(cCommand{Opcode: opStop, Context: 1})
	r.ring()
	<-reached
	r.setConf(4, 2)
	close(open)
	r.settle()
	var records [9]cRecord
	if r.load(bufAt, &records); records != [9]cRecord{} {
		t.Error("stored without bus mastering")
	}
	r.want("taken", r.get(regCmdTaken), 3)
	r.want("put", r.get(regCplPut), 2)
	next := r.move() // with the completion that is held
	next.setConf(4, 6)
	if done := next.complete(); done.Status != uint32(errAddress) || done.Result != 0 {
		t.Errorf("harvest: %+v", done)
	}
	if done := next.complete(); done.Status != uint32(statusOK) {
		t.Errorf("stop: %+v", done)
	}
}

// TestMSIXPending: a message for a masked vector waits in the MSI-X table.
func TestMSIXPending(t *testing.T) {
	r := started(t)
	r.bus(msixAt+12, 4, true, 1)
	r.queue(cCommand{Opcode: opCreate})
	r.ring()
	r.settle()
	if len(r.msi) != 0 {
		t.Error("a message of a masked vector")
	}
	r.bus(msixAt+12, 4, true, 0)
	r.want("result", uint32(r.complete().Result), 1)
	if n := r.MSIX().Metrics().Sent; n != 1 {
		t.Errorf("%d sent", n)
	}
}
