package fpga

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/fineline-vmm/fineline/coherence/track"
)

func TestCommands(t *testing.T) {
	r := started(t)
	r.eng.pages = pagesOf(5)
	id := r.create(uint32(track.Diff) | createCountBytes)
	r.want("first context", id, 1)
	c := r.eng.live[0]
	if c.options != (track.ContextOptions{Mode: track.Diff, CountBytes: true}) {
		t.Errorf("options %+v", c.options)
	}
	r.store(listAt, []cRange{{0x8000, 64}, {0x9040, 4096}})
	r.expect(statusOK, cCommand{Opcode: opRegister, Context: id, Count: 2, Address: listAt})
	want := []track.Range{{Base: 0x8000, SizeBytes: 64}, {Base: 0x9040, SizeBytes: 4096}}
	if !reflect.DeepEqual(c.ranges, want) {
		t.Errorf("ranges %+v", c.ranges)
	}
	r.expect(statusOK, cCommand{Opcode: opStart, Context: id})
	if !c.armed {
		t.Error("not armed")
	}
	r.expect(statusOK, cCommand{Opcode: opUnregister, Context: id, Count: 1, Address: listAt})
	if !reflect.DeepEqual(c.ranges, want[1:]) {
		t.Errorf("ranges %+v", c.ranges)
	}
	done := r.expect(statusOK, cCommand{Opcode: opHarvest, Context: id, Count: 3, Address: bufAt})
	if done.Result != 3 || done.Flags != completionMore {
		t.Errorf("harvest of 3 of 5: %+v", done)
	}
	r.expect(statusOK, cCommand{Opcode: opStop, Context: id})
	done = r.expect(statusOK, cCommand{Opcode: opHarvest, Context: id, Count: 3, Address: bufAt + 3*recordBytes})
	if done.Result != 2 || done.Flags != 0 {
		t.Errorf("the rest: %+v", done)
	}
	records := make([]cRecord, 6)
	r.load(bufAt, records)
	for i, p := range pagesOf(5) {
		want := cRecord{Page: uint64(p.GPA), Lines: p.Lines, ChangedBytes: p.ChangedBytes}
		if p.Inexact {
			want.Flags |= recordInexact
		}
		if p.Counted {
			want.Flags |= recordCounted
		}
		if records[i] != want {
			t.Errorf("record %d: %+v, want %+v", i, records[i], want)
		}
	}
	if records[5] != (cRecord{}) {
		t.Error("stored more records than there are")
	}
	r.expect(statusOK, cCommand{Opcode: opDestroy, Context: id})
	if n := r.eng.contexts(); n != 0 {
		t.Errorf("%d contexts after DESTROY", n)
	}
	m := r.Metrics()
	if m.Commands != 8 || m.Statuses[statusOK] != 8 || m.Records != 5 || m.Interrupts != 8 {
		t.Errorf("metrics %+v", m)
	}
}

// misuse is one command that must fail, in a machine with context 1 (diff, fresh), 2 (diff, started),
// 3 (diff, stopped) and 4 (homed, started); the list holds one good range, then a bad one.
var misuse = map[string]struct {
	want status
	c    cCommand
}{
	"opcode 0":                      {errOpcode, cCommand{}},
	"opcode 8":                      {errOpcode, cCommand{Opcode: 8, Flags: 7}},
	"a mode that nobody knows":      {errFlags, cCommand{Opcode: opCreate, Flags: 3}},
	"a mode of other machines":      {errFlags, cCommand{Opcode: opCreate, Flags: uint32(track.Stores)}},
	"an unknown option":             {errFlags, cCommand{Opcode: opCreate, Flags: 1 << 9}},
	"counting without diff":         {errFlags, cCommand{Opcode: opCreate, Flags: uint32(track.Homed) | createCountBytes}},
	"flags of START":                {errFlags, cCommand{Opcode: opStart, Context: 1, Flags: 1}},
	"unknown flag of HARVEST":       {errFlags, cCommand{Opcode: opHarvest, Context: 4, Flags: 2, Count: 1, Address: bufAt}},
	"no snoop of diff":              {errFlags, cCommand{Opcode: opHarvest, Context: 2, Flags: harvestNoSnoop, Count: 1, Address: bufAt}},
	"reserved":                      {errFlags, cCommand{Opcode: opStop, Context: 2, Reserved: [4]uint64{3: 1 << 63}}},
	"reserved, first byte":          {errFlags, cCommand{Opcode: opStop, Context: 2, Reserved: [4]uint64{1}}},
	"context 0":                     {errContext, cCommand{Opcode: opStart}},
	"context 5":                     {errContext, cCommand{Opcode: opDestroy, Context: 5}},
	"context 17":                    {errContext, cCommand{Opcode: opDestroy, Context: MaxContexts + 1}},
	"the last context number":       {errContext, cCommand{Opcode: opStart, Context: 1<<32 - 1}},
	"second START":                  {errState, cCommand{Opcode: opStart, Context: 2}},
	"STOP of a fresh context":       {errState, cCommand{Opcode: opStop, Context: 1}},
	"second STOP":                   {errState, cCommand{Opcode: opStop, Context: 3}},
	"HARVEST before START":          {errState, cCommand{Opcode: opHarvest, Context: 1, Count: 1, Address: bufAt}},
	"misaligned buffer":             {errAddress, cCommand{Opcode: opHarvest, Context: 2, Count: 1, Address: bufAt + 4}},
	"buffer in the hole":            {errAddress, cCommand{Opcode: opHarvest, Context: 2, Count: 1, Address: ramEnd}},
	"buffer over RAM's end":         {errAddress, cCommand{Opcode: opHarvest, Context: 2, Count: 2, Address: ramEnd - recordBytes}},
	"buffer that wraps":             {errAddress, cCommand{Opcode: opHarvest, Context: 2, Count: 2, Address: 1<<64 - recordBytes}},
	"buffer over a hole":            {errAddress, cCommand{Opcode: opHarvest, Context: 2, Count: maxCount, Address: ramEnd - 64}},
	"no records":                    {errCount, cCommand{Opcode: opHarvest, Context: 2, Address: bufAt}},
	"too many records":              {errCount, cCommand{Opcode: opHarvest, Context: 2, Count: maxCount + 1, Address: bufAt}},
	"misaligned list":               {errAddress, cCommand{Opcode: opRegister, Context: 2, Count: 1, Address: listAt + 1}},
	"list over RAM's end":           {errAddress, cCommand{Opcode: opUnregister, Context: 2, Count: 3, Address: ramEnd - 2*rangeBytes}},
	"no ranges":                     {errCount, cCommand{Opcode: opRegister, Context: 2, Address: listAt}},
	"too many ranges":               {errCount, cCommand{Opcode: opUnregister, Context: 2, Count: maxCount + 1, Address: listAt}},
	"a bad range among good":        {errAddress, cCommand{Opcode: opRegister, Context: 2, Count: 2, Address: listAt}},
	"a range that is not there":     {errNotRegistered, cCommand{Opcode: opUnregister, Context: 2, Count: 1, Address: listAt}},
	"opcode before flags":           {errOpcode, cCommand{Opcode: 99, Reserved: [4]uint64{1}}},
	"flags before context":          {errFlags, cCommand{Opcode: opStart, Flags: 1}},
	"state before count":            {errState, cCommand{Opcode: opHarvest, Context: 1}},
	"count before address":          {errCount, cCommand{Opcode: opHarvest, Context: 2, Address: 1}},
	"list at an address that wraps": {errAddress, cCommand{Opcode: opRegister, Context: 2, Count: maxCount, Address: 1<<64 - 8}},
}

func TestMisuse(t *testing.T) {
	r := started(t)
	for range 3 {
		r.create(uint32(track.Diff))
	}
	r.create(uint32(track.Homed))
	for _, c := range []cCommand{{Opcode: opStart, Context: 2}, {Opcode: opStart, Context: 3}, {Opcode: opStop, Context: 3}, {Opcode: opStart, Context: 4}} {
		r.expect(statusOK, c)
	}
	r.store(listAt, []cRange{{0x8000, 64}, {ramEnd, 64}})
	before := r.Metrics()
	for name, m := range misuse {
		t.Run(name, func(t *testing.T) {
			r.t = t
			done := r.expect(m.want, m.c)
			if done.Result != 0 || done.Flags != 0 {
				t.Errorf("completion %+v", done)
			}
		})
	}
	r.t = t
	if n := len(r.eng.live[1].ranges); n != 0 {
		t.Errorf("%d ranges registered by bad lists", n)
	}
	after := r.Metrics()
	var failed uint64
	for s, n := range after.Statuses {
		if status(s) != statusOK {
			failed += n
		}
	}
	if failed != uint64(len(misuse)) || after.Statuses[statusOK] != before.Statuses[statusOK] {
		t.Errorf("metrics %+v", after)
	}
	// The device works as before.
	r.expect(statusOK, cCommand{Opcode: opHarvest, Context: 3, Count: 1, Address: bufAt})
	r.expect(statusOK, cCommand{Opcode: opHarvest, Context: 4, Flags: harvestNoSnoop, Count: 1, Address: bufAt})
	if !reflect.DeepEqual(r.eng.snoops, []bool{true, false}) {
		t.Errorf("snoops %v", r.eng.snoops)
	}
	select {
	case err := <-r.logs:
		t.Errorf("a guest's mistake is in the log: %v", err)
	default:
	}
}

func TestContextsRunOut(t *testing.T) {
	r := started(t)
	for i := range uint32(MaxContexts) {
		r.want("context", r.create(0), i+1)
	}
	r.expect(errNoSpace, cCommand{Opcode: opCreate})
	r.expect(statusOK, cCommand{Opcode: opDestroy, Context: 7})
	r.expect(errContext, cCommand{Opcode: opStart, Context: 7})
	r.want("context", r.create(0), 7)
}

// TestEngineErrors gives each error of an engine to each command.
func TestEngineErrors(t *testing.T) {
	r := started(t)
	r.create(0)
	r.store(listAt, []cRange{{0x8000, 64}})
	r.expect(statusOK, cCommand{Opcode: opRegister, Context: 1, Count: 1, Address: listAt})
	for err, want := range map[error]status{
		track.ErrBadMode: errFlags, track.ErrBadRange: errAddress, track.ErrNotRegistered: errNotRegistered,
		track.ErrState: errState, track.ErrNoSpace: errNoSpace, errFake: errHost,
	} {
		r.eng.set(func() { r.eng.err = fmt.Errorf("wrapped: %w", err) })
		r.expect(want, cCommand{Opcode: opCreate})
		r.expect(want, cCommand{Opcode: opStart, Context: 1})
		r.expect(want, cCommand{Opcode: opRegister, Context: 1, Count: 1, Address: listAt})
	}
	r.eng.set(func() { r.eng.err = nil })
	r.expect(statusOK, cCommand{Opcode: opStart, Context: 1})
	r.eng.set(func() { r.eng.err = errFake; r.eng.live[0].pages = pagesOf(2) })
	if done := r.expect(errHost, cCommand{Opcode: opHarvest, Context: 1, Count: 9, Address: bufAt}); done.Result != 2 {
		t.Errorf("records written before the error are not told: %+v", done)
	}
	r.expect(errHost, cCommand{Opcode: opStop, Context: 1})
	r.eng.set(func() { r.eng.live[0].armed = true })
	r.eng.set(func() { r.eng.err = nil })
	r.expect(statusOK, cCommand{Opcode: opStop, Context: 1}) // it may be tried again
	r.eng.set(func() { r.eng.err = errFake })
	r.expect(errHost, cCommand{Opcode: opDestroy, Context: 1})
	r.expect(errContext, cCommand{Opcode: opDestroy, Context: 1}) // gone all the same
	first := <-r.logs
	if !errors.Is(first, errFake) || !strings.Contains(first.Error(), "command") {
		t.Errorf("log: %v", first)
	}
}

// TestLogIsLimited: a guest that makes the host fail does not fill the host's log.
func TestLogIsLimited(t *testing.T) {
	r := started(t)
	r.eng.set(func() { r.eng.err = errFake })
	for range 200 {
		r.expect(errHost, cCommand{Opcode: opCreate})
	}
	if n := len(r.logs); n < 1 || n > 100 {
		t.Errorf("%d lines for 200 failures", n)
	}
}

// TestLargestList registers as many ranges as a command can, over the border of two regions.
func TestLargestList(t *testing.T) {
	r := newLargeRig(t)
	r.create(0)
	const at = largeSplit - 8*rangeBytes
	ranges := make([]cRange, maxCount)
	for i := range ranges {
		ranges[i] = cRange{uint64(i%1000) * 64, 64 + 64*uint64(i%3)}
	}
	r.store(at, ranges)
	r.expect(statusOK, cCommand{Opcode: opRegister, Context: 1, Count: maxCount, Address: at})
	got := r.eng.live[0].ranges
	if len(got) != maxCount {
		t.Fatalf("%d ranges", len(got))
	}
	for i, x := range got {
		if uint64(x.Base) != ranges[i].Address || x.SizeBytes != ranges[i].Bytes {
			t.Fatalf("range %d: %+v, want %+v", i, x, ranges[i])
		}
	}
	r.expect(errNoSpace, cCommand{Opcode: opRegister, Context: 1, Count: maxCount, Address: at})
}

// TestLargestHarvest fills the largest buffer, and no byte behind it.
func TestLargestHarvest(t *testing.T) {
	r := newLargeRig(t)
	r.eng.pages = pagesOf(maxCount + 1)
	r.create(0)
	r.expect(statusOK, cCommand{Opcode: opStart, Context: 1})
	const at = largeSplit - 8
	done := r.expect(statusOK, cCommand{Opcode: opHarvest, Context: 1, Count: maxCount, Address: at})
	if done.Result != maxCount || done.Flags != completionMore {
		t.Errorf("completion %+v", done)
	}
	records := make([]cRecord, maxCount+1)
	r.load(at, records)
	for i := range maxCount {
		if records[i].Page != uint64(i)<<12 || records[i].Lines != uint64(i)+1 {
			t.Fatalf("record %d: %+v", i, records[i])
		}
	}
	if records[maxCount] != (cRecord{}) {
		t.Error("stored behind the buffer")
	}
}

// TestGreedyEngine: an engine that emits too many pages does not reach what lies behind the buffer.
func TestGreedyEngine(t *testing.T) {
	r := newRig(t)
	s := &sink{d: r.Device, at: bufAt, room: 2}
	for _, p := range pagesOf(3) {
		s.emit(p)
	}
	if !errors.Is(s.err, errTooMany) || len(s.buf) != 2*recordBytes {
		t.Errorf("%d bytes, %v", len(s.buf), s.err)
	}
}
