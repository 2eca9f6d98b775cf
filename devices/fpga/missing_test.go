package fpga

import (
	"context"
	"errors"
	"testing"

	"github.com/fineline-vmm/fineline/memory"
)

// TestMissingMemory has the pages of rings, lists and buffers come late. The device waits for each, can be paused, saved and
// reset meanwhile, and does each command once.
func TestMissingMemory(t *testing.T) {
	if err := memory.CheckDemand(); err != nil {
		t.Skip(err)
	}
	r := started(t)
	id := r.create(0)
	r.must(r.Pause(context.Background()))
	r.store(listAt, cRange{0x1000, 0x1000})
	for _, c := range []cCommand{
		{Opcode: opRegister, Context: id, Count: 1, Address: listAt},
		{Opcode: opStart, Context: id},
		{Opcode: opHarvest, Context: id, Count: 4, Address: bufAt},
	} {
		r.queue(c)
	}
	all := r.ram.NewPageSet()
	for _, region := range r.ram.Regions() {
		all.AddRange(region.Base, region.SizeBytes)
	}
	d, err := r.ram.Demand(all)
	r.must(err)
	defer func() { r.must(d.Close()) }()
	keep := func([]byte) error { return nil }
	r.ring()
	r.Resume()

	ctx, done := context.WithCancel(t.Context())
	go func() {
		for range 3 {
			<-r.msi
		}
		done()
	}()
	var asked []memory.GPA
	for {
		gpa, err := d.Next(ctx)
		if err != nil {
			break
		}
		asked = append(asked, gpa)
		r.must(r.Pause(t.Context()))
		if _, err := r.State(); err != nil {
			t.Error(err)
		}
		_, err = d.Fill(gpa, keep)
		r.must(err)
		r.Resume()
	}
	want := map[memory.GPA]bool{}
	for _, at := range []memory.GPA{cmdAt, cplAt, listAt, bufAt} {
		want[at&^(memory.PageSize-1)] = true
	}
	for _, gpa := range asked {
		if !want[gpa] {
			t.Errorf("the device asked for %#x", uint64(gpa))
		}
		delete(want, gpa)
	}
	if len(want) != 0 {
		t.Errorf("the device did not ask for %v", want)
	}
	for range 3 {
		if c := r.take(); c.Status != uint32(statusOK) {
			t.Errorf("completion %+v", c)
		}
	}
	if n := r.Metrics().Commands; n != 4 {
		t.Errorf("%d commands, want 4", n)
	}
	all.Range(func(gpa memory.GPA) bool {
		_, err := d.Fill(gpa, keep)
		return err == nil
	})
}

// TestMissingForEver: a device that waits for memory is reset and closed all the same.
func TestMissingForEver(t *testing.T) {
	if err := memory.CheckDemand(); err != nil {
		t.Skip(err)
	}
	r := started(t)
	r.must(r.Pause(context.Background()))
	r.queue(cCommand{Opcode: opCreate})
	absent := r.ram.NewPageSet()
	absent.Add(cmdAt)
	d, err := r.ram.Demand(absent)
	r.must(err)
	r.ring()
	r.Resume()
	if _, err := d.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.set(regControl, 0)
	for r.get(regStatus) != 0 {
	}
	r.Reset()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if _, err := r.ram.LoadUint8(cmdAt); !errors.Is(err, memory.ErrMissing) {
		t.Error(err)
	}
}
