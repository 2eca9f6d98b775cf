package fpga

import (
	"context"
	"errors"
	"runtime"
	"testing"
)

// What a guest does between two steps of the worker, played in order: the test is the worker.

// paused is a rig whose worker is asleep, with one command in the ring.
func paused(t *testing.T) *rig {
	r := started(t)
	r.must(r.Pause(context.Background()))
	r.queue(cCommand{Opcode: opCreate})
	r.ring()
	return r
}

// beginStep is a step up to its completion's store.
func (r *rig) beginStep() uint64 {
	j, ok := r.begin()
	done, _ := r.run(j)
	if !ok || done == nil {
		r.t.Fatal("no command")
	}
	if !r.beginPut(j.epoch) {
		r.t.Fatal("no store")
	}
	return j.epoch
}

func (r *rig) endStep(epoch uint64) {
	r.endPut(epoch, nil)
	r.end()
}

// TestGuestIsFaster: the guest takes a completion that it saw in memory, before CPL_PUT counts it.
func TestGuestIsFaster(t *testing.T) {
	r := paused(t)
	epoch := r.beginStep()
	r.want("put", r.get(regCplPut), 0)
	r.set(regCplTaken, 1)
	r.want("status", r.get(regStatus), statusEnabled)
	r.endStep(epoch)
	r.want("put", r.get(regCplPut), 1)
}

// TestResetDuringStore: the completion counts for nobody, and no message follows.
func TestResetDuringStore(t *testing.T) {
	r := paused(t)
	epoch := r.beginStep()
	r.set(regControl, 0)
	r.enable()
	r.endStep(epoch)
	r.want("put", r.get(regCplPut), 0)
	r.want("messages", uint32(len(r.msi)), 0)
	r.set(regCplTaken, 1)
	r.want("error", r.get(regError), ringBadIndex)
}

// TestResetWithoutContexts: the running command alone keeps STATUS.
func TestResetWithoutContexts(t *testing.T) {
	r := started(t)
	reached, open := r.gate("new")
	r.queue(cCommand{Opcode: opCreate})
	r.ring()
	<-reached
	r.set(regControl, 0)
	r.want("status", r.get(regStatus), statusEnabled)
	close(open)
	r.settle()
	r.want("status", r.get(regStatus), 0)
}

// TestResetBeforeStep: old contexts end before the first command of the new rings.
func TestResetBeforeStep(t *testing.T) {
	r := started(t)
	r.create(0)
	r.must(r.Pause(context.Background()))
	r.set(regControl, 0)
	r.enable()
	r.queue(cCommand{Opcode: opCreate})
	r.ring()
	if _, ok := r.begin(); ok {
		t.Error("a command began while a stale context lives")
	}
	r.Resume()
	r.want("context", uint32(r.complete().Result), 1)
	r.want("contexts", uint32(r.eng.contexts()), 1)
}

// holding is a rig whose last completion waits for bus mastering.
func holding(t *testing.T) *rig {
	r := started(t)
	reached, open := r.gate("new")
	r.queue(cCommand{Opcode: opCreate})
	r.ring()
	<-reached
	r.setConf(4, 2)
	close(open)
	r.settle()
	r.want("taken", r.get(regCmdTaken), 1)
	r.want("put", r.get(regCplPut), 0)
	return r
}

func TestResetOfHeldCompletion(t *testing.T) {
	r := holding(t)
	r.set(regControl, 0)
	r.settle()
	r.enable()
	r.setConf(4, 6)
	r.settle()
	r.want("put", r.get(regCplPut), 0)
	r.want("messages", uint32(len(r.msi)), 0)
}

func TestErrorWithHeldCompletion(t *testing.T) {
	r := holding(t)
	r.set(regDoorbell, 0)
	r.want("error", r.get(regError), ringBadIndex)
	next := r.move()
	next.setConf(4, 6)
	next.settle()
	next.want("put", next.get(regCplPut), 0)
}

// TestConfigWakes: switching bus mastering on wakes the worker.
func TestConfigWakes(t *testing.T) {
	r := started(t)
	r.must(r.Pause(context.Background()))
	r.wakeUp()
	for len(r.wake) > 0 { // the worker takes the token and waits for the turn
		runtime.Gosched()
	}
	r.setConf(4, 6)
	if len(r.wake) != 1 {
		t.Error("the worker sleeps on")
	}
	r.Resume()
}

// TestRecordsInPieces: records are in the buffer before the harvest ends, so a reset stops a long one.
func TestRecordsInPieces(t *testing.T) {
	r := started(t)
	const n = transferBytes / recordBytes
	s := &sink{d: r.Device, epoch: r.epoch, at: bufAt, room: 2 * n}
	for _, p := range pagesOf(n) {
		s.emit(p)
	}
	if s.stored != n || s.err != nil {
		t.Errorf("%d stored, %v", s.stored, s.err)
	}
	r.set(regControl, 0)
	for _, p := range pagesOf(n) {
		s.emit(p)
	}
	if s.stored != n || s.err == nil {
		t.Errorf("%d stored after a reset, %v", s.stored, s.err)
	}
}

// TestListWithoutBusMaster: a list is not read on when bus mastering goes off.
func TestListWithoutBusMaster(t *testing.T) {
	r := started(t)
	r.setConf(4, 2)
	if _, err := r.readRanges(r.epoch, command{count: 1, address: listAt}); !errors.Is(err, errAddress) {
		t.Errorf("read a list: %v", err)
	}
}

// TestSaveAfterReset: contexts that a reset has left are not saved, and end.
func TestSaveAfterReset(t *testing.T) {
	r := started(t)
	r.create(0)
	r.must(r.Pause(context.Background()))
	r.set(regControl, 0)
	r.saved()
	r.want("contexts", uint32(r.eng.contexts()), 0)
	r.want("status", r.get(regStatus), 0)
}
