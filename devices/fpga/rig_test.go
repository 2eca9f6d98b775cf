package fpga

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"testing"

	"go.uber.org/goleak"

	"github.com/fineline-vmm/fineline/coherence/track"
	"github.com/fineline-vmm/fineline/devices"
	"github.com/fineline-vmm/fineline/devices/pci"
	"github.com/fineline-vmm/fineline/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Where things are in a rig's machine. RAM ends and begins again at ramSplit, and there is a hole behind ramEnd.
const (
	ramSplit = 0x40000
	ramEnd   = 0x80000
	ramHigh  = 0x100000

	cmdAt   = 0x1000
	cplAt   = 0x3000
	listAt  = 0x10000
	bufAt   = 0x20000
	entries = 8

	ecamAt  = 0xe0000000
	barAt   = 0xc0000000
	msixAt  = 0xc0001000
	slot    = 3
	msiAddr = 0xfee00000
	msiData = 0x41
)

// Structs of the header, as encoding/binary lays them out.
type (
	cCommand struct {
		Opcode, Flags  uint32
		Cookie         uint64
		Context, Count uint32
		Address        uint64
		Reserved       [4]uint64
	}
	cRange  struct{ Address, Bytes uint64 }
	cRecord struct {
		Page, Lines         uint64
		ChangedBytes, Flags uint32
		Reserved            uint64
	}
	cCompletion struct {
		Cookie, Result                   uint64
		Status, Flags, Context, Sequence uint32
	}
)

// rig is a machine with the device on its bus, and a driver.
type rig struct {
	*Device
	t    testing.TB
	ram  *memory.Guest
	mmio *devices.Bus
	eng  *fakeEngine
	msi  chan uint32
	logs chan error

	put, taken uint32 // the driver's counts
}

func newRig(t testing.TB) *rig {
	return newRigWith(t, []memory.Region{
		{Base: 0, SizeBytes: ramSplit}, {Base: ramSplit, SizeBytes: ramEnd - ramSplit}, {Base: ramHigh, SizeBytes: 0x1000},
	})
}

// newLargeRig is started, in a machine with room for the largest lists and buffers.
func newLargeRig(t testing.TB) *rig {
	r := newRigWith(t, []memory.Region{{Base: 0, SizeBytes: largeSplit}, {Base: largeSplit, SizeBytes: largeSplit}})
	r.setup()
	r.enable()
	return r
}

const largeSplit = 4 << 20

func newRigWith(t testing.TB, regions []memory.Region) *rig {
	t.Helper()
	r := &rig{t: t, mmio: devices.NewBus("mmio"), msi: make(chan uint32, 1<<16), logs: make(chan error, 1<<10)}
	var err error
	r.ram, err = memory.New(regions, memory.Options{})
	r.must(err)
	t.Cleanup(func() { r.must(r.ram.Close()) })
	r.eng = &fakeEngine{t: t, inRAM: func(x track.Range) bool {
		return x.Base%64 == 0 && x.SizeBytes%64 == 0 && x.SizeBytes > 0 && x.SizeBytes < 1<<32 && r.ram.Contains(x.Base, x.SizeBytes)
	}}
	r.Device, err = New(r.ram, r.eng, Options{
		Signal: func(addr uint64, data uint32) {
			if addr != msiAddr {
				data = ^data // a test waits for msiData
			}
			r.msi <- data
		},
		Log: func(err error) { r.logs <- err },
	})
	r.must(err)
	t.Cleanup(func() {
		r.eng.set(func() { r.eng.err, r.eng.hook = nil, nil })
		r.Close()
		if n := r.eng.contexts(); n != 0 {
			t.Errorf("%d contexts left after Close", n)
		}
	})
	root := pci.NewRoot(r.mmio, devices.NewBus("pio"))
	r.must(r.mmio.Insert(ecamAt, pci.ECAMBytes, root.ECAM()))
	r.must(root.Add(slot, r.Device))
	return r
}

// started is a rig whose driver has set up all: BARs, MSI-X and rings.
func started(t testing.TB) *rig {
	t.Helper()
	r := newRig(t)
	r.setup()
	r.enable()
	return r
}

func (r *rig) setup() {
	r.setConf(0x10, barAt)
	r.setConf(0x14, msixAt)
	r.setConf(4, 6) // memory, bus master
	r.bus(msixAt, 8, true, msiAddr)
	r.bus(msixAt+8, 4, true, msiData)
	r.bus(msixAt+12, 4, true, 0)
	r.setConf(0x40, 1<<31) // MSI-X enable, in the first capability
}

func (r *rig) enable() {
	r.set8(regCmdRing, cmdAt)
	r.set8(regCplRing, cplAt)
	r.set(regCmdEntries, entries)
	r.set(regCplEntries, entries)
	r.set(regControl, controlEnable|controlInterrupt)
	r.put, r.taken = 0, 0
	r.want("status", r.get(regStatus), statusEnabled)
}

// bus is one access of n bytes; it returns what was read or written.
func (r *rig) bus(addr uint64, n int, write bool, v uint64) []byte {
	p := binary.LittleEndian.AppendUint64(nil, v)
	if write {
		r.mmio.Write(addr, p[:n])
	} else {
		clear(p)
		r.mmio.Read(addr, p[:n])
	}
	return p
}

func (r *rig) get(reg uint64) uint32 {
	return uint32(binary.LittleEndian.Uint64(r.bus(barAt+reg, 4, false, 0)))
}
func (r *rig) set(reg uint64, v uint32)  { r.bus(barAt+reg, 4, true, uint64(v)) }
func (r *rig) set8(reg uint64, v uint64) { r.bus(barAt+reg, 8, true, v) }

func (r *rig) setConf(reg uint64, v uint32) { r.bus(ecamAt+slot<<15+reg, 4, true, uint64(v)) }

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) want(what string, got, want uint32) {
	r.t.Helper()
	if got != want {
		r.t.Errorf("%s = %#x, want %#x", what, got, want)
	}
}

// store puts values of fixed size into guest memory.
func (r *rig) store(at uint64, v any) {
	r.t.Helper()
	raw, err := binary.Append(nil, binary.LittleEndian, v)
	r.must(err)
	r.must(r.ram.WriteAt(memory.GPA(at), raw))
}

func (r *rig) load(at uint64, v any) {
	r.t.Helper()
	raw := make([]byte, binary.Size(v))
	r.must(r.ram.ReadAt(memory.GPA(at), raw))
	r.must(binary.Read(bytes.NewReader(raw), binary.LittleEndian, v))
}

// queue puts a command into the ring, without the doorbell.
func (r *rig) queue(c cCommand) {
	r.t.Helper()
	r.store(cmdAt+uint64(r.put%entries)*commandBytes, c)
	r.put++
}

func (r *rig) ring() { r.set(regDoorbell, r.put) }

// complete takes the next completion, after its interrupt.
func (r *rig) complete() (c cCompletion) {
	r.t.Helper()
	r.want("message", <-r.msi, msiData)
	return r.take()
}

func (r *rig) take() (c cCompletion) {
	r.t.Helper()
	r.load(cplAt+uint64(r.taken%entries)*completionBytes, &c)
	r.taken++
	r.want("sequence", c.Sequence, r.taken)
	r.set(regCplTaken, r.taken)
	return c
}

// do executes one command.
func (r *rig) do(c cCommand) cCompletion {
	r.t.Helper()
	c.Cookie = 0xc00c1e<<32 | uint64(r.put)
	r.queue(c)
	r.ring()
	done := r.complete()
	if done.Cookie != c.Cookie || c.Opcode != opCreate && done.Context != c.Context {
		r.t.Errorf("completion %+v of command %+v", done, c)
	}
	return done
}

// expect executes one command that ends with a status.
func (r *rig) expect(want status, c cCommand) cCompletion {
	r.t.Helper()
	done := r.do(c)
	if done.Status != uint32(want) {
		r.t.Errorf("%+v: status %d, want %d", c, done.Status, want)
	}
	return done
}

// create makes a context.
func (r *rig) create(flags uint32) uint32 {
	r.t.Helper()
	return uint32(r.expect(statusOK, cCommand{Opcode: opCreate, Flags: flags}).Result)
}

// settle lets the device do all it can, and returns with it at rest.
func (r *rig) settle() {
	r.t.Helper()
	r.must(r.Pause(context.Background()))
	for more := true; more; more, _ = r.step() {
	}
	r.Resume()
}

// dropMessages forgets the interrupts of completions that nobody takes.
func (r *rig) dropMessages() {
	for len(r.msi) > 0 {
		<-r.msi
	}
}

// pausedNow reports whether Pause can have the turn at this moment.
func (r *rig) pausedNow() bool {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for range 100 { // a select with two ready cases takes either
		if err := r.Pause(ctx); err == nil {
			r.Resume()
			return true
		} else if !errors.Is(err, context.Canceled) {
			r.t.Fatal(err)
		}
	}
	return false
}

func pagesOf(n int) []track.Page {
	pages := make([]track.Page, n)
	for i := range pages {
		pages[i] = track.Page{GPA: memory.GPA(i) << 12, Lines: uint64(i) + 1, Counted: i%2 == 0, ChangedBytes: uint32(i % 2), Inexact: i%3 == 0}
	}
	return pages
}
