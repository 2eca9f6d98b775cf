package fpga

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"reflect"
	"testing"

	"github.com/fineline-vmm/fineline/coherence/track"
	"github.com/fineline-vmm/fineline/memory"
)

// fuzzer is a guest that does anything with registers and memory. It knows all of memory before each command of the
// device's, and so what the device has changed.
type fuzzer struct {
	*rig
	ops []byte
}

// next returns the next n bytes of the input as a number; zeros after its end.
func (f *fuzzer) next(n int) (v uint64) {
	for i := range n {
		if len(f.ops) == 0 {
			return v
		}
		v |= uint64(f.ops[0]) << (8 * i)
		f.ops = f.ops[1:]
	}
	return v
}

// fuzzSplit is where a region ends and the next begins; little RAM makes for cheap snapshots.
const fuzzSplit = 0x8000

// address is mostly one that matters.
func (f *fuzzer) address() uint64 {
	k := f.next(1)
	base := []uint64{0, cmdAt, cplAt, 0x5000, 0x6000, fuzzSplit, fuzzSplit + 0x1000, ramHigh, ramHigh + 0x1000, 1 << 63}[k%10]
	return base + uint64(int64(int8(f.next(1))))*8
}

func (f *fuzzer) command() cCommand {
	c := cCommand{
		Opcode: uint32(f.next(1) % 9), Flags: uint32(f.next(1) % 4), Cookie: f.next(1), Context: uint32(f.next(1) % 20),
		Count: uint32(f.next(1)), Address: f.address(),
	}
	switch f.next(1) {
	case 1:
		c.Flags = uint32(f.next(4))
	case 2:
		c.Count = uint32(f.next(4))
	case 3:
		c.Reserved[f.next(1)%4] = f.next(8)
	case 4:
		c.Address = f.next(8)
	}
	return c
}

// snapshot is all of RAM, region by region.
func (f *fuzzer) snapshot() (all [][]byte) {
	for _, region := range f.ram.Regions() {
		p := make([]byte, region.SizeBytes)
		f.must(f.ram.ReadAt(region.Base, p))
		all = append(all, p)
	}
	return all
}

// allow makes got equal to want in n bytes at an address.
func (f *fuzzer) allow(got, want [][]byte, at, n uint64) {
	for i, region := range f.ram.Regions() {
		for a := max(at, uint64(region.Base)); a < min(at+n, uint64(region.Base)+region.SizeBytes); a++ {
			got[i][a-uint64(region.Base)] = want[i][a-uint64(region.Base)]
		}
	}
}

// stepAll executes what the device would, one step a time, and compares memory: only the completion's entry and the
// records that the engine has emitted may change. Preconditions: paused.
func (f *fuzzer) stepAll() {
	for {
		before := f.snapshot()
		was := f.copyOfRegisters()
		f.eng.set(func() { f.eng.emitted = 0 })
		more, _ := f.step()
		after := f.snapshot()
		if more {
			f.allow(after, before, was.cplRing+uint64(was.cplPut%was.cplEntries)*completionBytes, completionBytes)
			// The command as it was in the ring; when a completion was held, the engine has emitted nothing.
			var c cCommand
			raw := make([]byte, commandBytes)
			at := was.cmdRing + uint64(was.cmdTaken%was.cmdEntries)*commandBytes
			f.peek(before, at, raw)
			f.must(binary.Read(bytes.NewReader(raw), binary.LittleEndian, &c))
			f.allow(after, before, c.Address, uint64(f.eng.emitted)*recordBytes)
		}
		if !reflect.DeepEqual(before, after) {
			f.t.Fatalf("the device stored where it may not; registers %+v", was)
		}
		if !more {
			return
		}
	}
}

// peek reads a snapshot.
func (f *fuzzer) peek(all [][]byte, at uint64, p []byte) {
	for i, region := range f.ram.Regions() {
		for j := range p {
			if off := at + uint64(j) - uint64(region.Base); off < region.SizeBytes {
				p[j] = all[i][off]
			}
		}
	}
}

func (f *fuzzer) copyOfRegisters() registers {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.regs
}

// reload saves the device and restores it where it is.
func (f *fuzzer) reload() {
	s, err := f.State()
	f.must(err)
	raw, err := json.Marshal(s)
	f.must(err)
	var back, again State
	f.must(json.Unmarshal(raw, &back))
	if err := f.Restore(back); err != nil {
		f.t.Fatalf("own state refused: %v\n%s", err, raw)
	}
	s, err = f.State()
	f.must(err)
	raw, err = json.Marshal(s)
	f.must(err)
	f.must(json.Unmarshal(raw, &again))
	if !reflect.DeepEqual(back, again) {
		f.t.Fatalf("state changed by restore:\n%+v\n%+v", back, again)
	}
}

// op does one thing that a guest or its host may do.
func (f *fuzzer) op() {
	switch f.next(1) % 12 {
	case 0: // any access
		p := make([]byte, 1+f.next(1)%8)
		off := f.next(1)
		if f.next(1)%2 == 0 {
			f.mmio.Read(barAt+off, p)
			return
		}
		binary.LittleEndian.PutUint64(append(p, make([]byte, 8)...)[:8], f.next(8))
		f.mmio.Write(barAt+off, p)
	case 1: // a register
		f.set(f.next(1)%0x13*4, uint32(f.next(4)))
	case 2: // any ring
		f.set8(regCmdRing, f.address())
		f.set8(regCplRing, f.address())
		f.set(regCmdEntries, 1<<(f.next(1)%14))
		f.set(regCplEntries, 1<<(f.next(1)%14))
	case 3:
		f.set(regControl, uint32(f.next(1)))
	case 4, 5: // a command where the device expects the next
		r := f.copyOfRegisters()
		if r.running() {
			raw, err := binary.Append(nil, binary.LittleEndian, f.command())
			f.must(err)
			f.must(f.ram.WriteAt(memory.GPA(r.cmdRing+uint64(r.doorbell%r.cmdEntries)*commandBytes), raw))
			f.set(regDoorbell, r.doorbell+1)
		}
	case 6: // memory
		_ = f.ram.WriteAt(memory.GPA(f.address()), binary.LittleEndian.AppendUint64(nil, f.next(8))) // may be no RAM
	case 7:
		f.set(regCplTaken, f.get(regCplPut)-uint32(f.next(1)%3))
	case 8: // the good way in, so that the rest gets somewhere
		f.set(regControl, 0)
		f.setup()
		f.set8(regCmdRing, cmdAt)
		f.set8(regCplRing, cplAt)
		f.set(regCmdEntries, entries)
		f.set(regCplEntries, entries)
		f.set(regControl, controlEnable|controlInterrupt)
	case 9:
		f.setConf(f.next(1)%64*4, uint32(f.next(4)))
	case 10:
		f.reload()
	case 11:
		if f.next(1)%8 == 0 {
			f.Reset()
		}
	}
}

// FuzzDevice: a hostile guest, saved and restored in between. It ends no process, changes no memory but
// completions and buffers, and leaves a device that works after a reset.
func FuzzDevice(f *testing.F) {
	f.Add([]byte{8, 4, 1, 0, 7, 0, 0, 0, 0, 0, 4, 5, 0, 8, 1, 0, 0, 0, 0, 4, 7, 0, 9, 1, 5, 4, 0, 0, 10})
	f.Add([]byte{8, 4, 1, 2, 1, 0, 0, 0, 0, 0, 6, 3, 0, 0, 128, 0, 0, 0, 0, 0, 0, 4, 3, 0, 2, 1, 1, 3, 0, 0, 3, 0})
	f.Add([]byte{8, 2, 6, 0, 6, 0, 3, 3, 3, 1, 3, 0, 1, 4, 255, 255, 255, 255, 9, 1, 2, 0, 0, 0})
	f.Add([]byte{8, 9, 1, 2, 0, 0, 0, 4, 1, 0, 0, 0, 0, 0, 0, 10, 8, 11, 0, 8})
	f.Fuzz(func(t *testing.T, ops []byte) {
		fz := &fuzzer{rig: newRigWith(t, []memory.Region{
			{Base: 0, SizeBytes: fuzzSplit}, {Base: fuzzSplit, SizeBytes: 0x1000}, {Base: ramHigh, SizeBytes: 0x1000},
		}), ops: ops[:min(len(ops), 400)]}
		fz.eng.pages = []track.Page{{GPA: 0x1000, Lines: ^uint64(0), Counted: true, ChangedBytes: ^uint32(0)}, {GPA: 0x2000, Lines: 1, Inexact: true}, {GPA: 0x3000, Lines: 3}}
		fz.must(fz.Pause(context.Background()))
		for len(fz.ops) > 0 {
			fz.op()
			fz.stepAll()
			fz.dropMessages()
		}
		fz.Reset()
		fz.Resume()
		fz.setup()
		fz.enable()
		fz.want("context", fz.create(0), 1)
	})
}

// FuzzRestore gives Restore states from hostile files: refused, or a device that works after a reset.
func FuzzRestore(f *testing.F) {
	f.Add([]byte(`{"control":1,"cmd_ring":4096,"cpl_ring":12288,"cmd_entries":8,"cpl_entries":8,"doorbell":9,"cmd_taken":1,"cpl_put":1}`))
	f.Add([]byte(`{"control":3,"cmd_ring":4096,"cpl_ring":12288,"cmd_entries":2,"cpl_entries":2,"cmd_taken":1,"held":{"status":77}}`))
	f.Add([]byte(`{"control":1,"error":3,"contexts":[{"flags":2,"started":true,"track":{"found":"W10=","ranges":"W10="}},null,{}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r := newRig(t)
		r.setup()
		r.must(r.Pause(context.Background()))
		s, err := r.State()
		r.must(err)
		config := s.Config
		if json.Unmarshal(raw, &s) != nil {
			return
		}
		s.Config = config // FuzzPCIConfig's
		if r.Restore(s) != nil {
			return
		}
		fz := &fuzzer{rig: r}
		fz.stepAll()
		r.Resume()
		r.set(regControl, 0)
		r.settle()
		r.dropMessages()
		r.enable()
		r.want("context", r.create(0), 1)
	})
}
