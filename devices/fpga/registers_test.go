package fpga

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/fineline-vmm/fineline/coherence/track"
)

func TestIdentity(t *testing.T) {
	r := newRig(t)
	r.want("id", uint32(binary.LittleEndian.Uint64(r.bus(ecamAt+slot<<15, 4, false, 0))), deviceID<<16|vendorID)
	r.want("class", uint32(binary.LittleEndian.Uint64(r.bus(ecamAt+slot<<15+8, 4, false, 0))), class<<8)
	r.setup()
	for reg, want := range map[uint64]uint32{
		regID: magic, regVersion: abiVersion, regFeatures: 1<<track.Diff | 1<<track.Homed, regMaxContexts: MaxContexts,
		regMaxRanges: fakeMaxRanges, regControl: 0, regStatus: 0, regError: 0, regDoorbell: 0,
	} {
		r.want("register", r.get(reg), want)
	}
}

func TestWideRegisters(t *testing.T) {
	r := newRig(t)
	r.setup()
	for _, reg := range []uint64{regCmdRing, regCplRing} {
		r.set8(reg, 0x1122334455667788)
		r.want("low half", r.get(reg), 0x55667788)
		r.want("high half", r.get(reg+4), 0x11223344)
		r.set(reg, 1)
		r.set(reg+4, 2)
		if v := binary.LittleEndian.Uint64(r.bus(barAt+reg, 8, false, 0)); v != 2<<32|1 {
			t.Errorf("register %#x = %#x after two halves", reg, v)
		}
	}
}

// TestBadAccesses: what no register takes reads zero, changes nothing and is counted.
func TestBadAccesses(t *testing.T) {
	r := started(t)
	before := r.Metrics().BadAccesses
	n := uint64(0)
	for off := uint64(0); off < 0x60; off++ {
		for _, size := range []int{1, 2, 3, 4, 5, 8} {
			if size == 4 && off%4 == 0 && off < regsBytes || size == 8 && (off == regCmdRing || off == regCplRing) {
				continue
			}
			p := make([]byte, size)
			for i := range p {
				p[i] = 0xff
			}
			r.mmio.Write(barAt+off, p)
			r.mmio.Read(barAt+off, p)
			for _, b := range p {
				if b != 0 {
					t.Errorf("%d bytes at %#x: %x", size, off, p)
					break
				}
			}
			n += 2
		}
	}
	if got := r.Metrics().BadAccesses - before; got != n {
		t.Errorf("%d counted, %d made", got, n)
	}
	r.want("control", r.get(regControl), controlEnable|controlInterrupt)
	r.create(0)
}

// TestIgnoredWrites: read-only registers, rings while they are used, counts while they are not.
func TestIgnoredWrites(t *testing.T) {
	r := newRig(t)
	r.setup()
	readOnly := []uint64{regID, regVersion, regFeatures, regMaxContexts, regMaxRanges, regStatus, regError, regCmdTaken, regCplPut}
	check := func(regs []uint64) {
		t.Helper()
		for _, reg := range regs {
			was, n := r.get(reg), r.Metrics().IgnoredWrites
			r.set(reg, ^was)
			r.want("register", r.get(reg), was)
			if got := r.Metrics().IgnoredWrites - n; got != 1 {
				t.Errorf("register %#x: %d ignored writes", reg, got)
			}
		}
	}
	check(append(readOnly, regDoorbell, regCplTaken))
	r.enable()
	check(append(readOnly, regCmdRing, regCmdRing+4, regCplRing, regCplRing+4, regCmdEntries, regCplEntries))
	r.set(regControl, math.MaxUint32)
	r.want("control", r.get(regControl), controlMask)
	r.create(0)
}

func TestBadRings(t *testing.T) {
	r := newRig(t)
	r.setup()
	for name, c := range map[string]struct {
		cmd, cpl         uint64
		cmdN, cplN, want uint32
	}{
		"nothing set":        {0, 0, 0, 0, ringBadEntries},
		"one entry":          {cmdAt, cplAt, 1, 8, ringBadEntries},
		"one completion":     {cmdAt, cplAt, 8, 1, ringBadEntries},
		"not a power of two": {cmdAt, cplAt, 8, 24, ringBadEntries},
		"too many":           {cmdAt, cplAt, 8192, 8, ringBadEntries},
		"huge":               {cmdAt, cplAt, 8, 1 << 31, ringBadEntries},
		"misaligned":         {cmdAt + 32, cplAt, 8, 8, ringBadAddress},
		"in the hole":        {cmdAt, ramEnd, 8, 8, ringBadAddress},
		"over RAM's end":     {ramEnd - 64, cplAt, 2, 2, ringBadAddress},
		"wraps":              {cmdAt, math.MaxUint64 - 63, 8, 4096, ringBadAddress},
		"beyond all":         {1 << 63, cplAt, 8, 8, ringBadAddress},
	} {
		r.set8(regCmdRing, c.cmd)
		r.set8(regCplRing, c.cpl)
		r.set(regCmdEntries, c.cmdN)
		r.set(regCplEntries, c.cplN)
		r.set(regControl, controlEnable)
		r.want(name+": status", r.get(regStatus), statusEnabled|statusError)
		r.want(name+": error", r.get(regError), c.want)
		r.set(regDoorbell, 1)
		r.want(name+": doorbell ignored", r.get(regCmdTaken), 0)
		r.set(regControl, 0)
		r.want(name+": status after reset", r.get(regStatus), 0)
		r.want(name+": error after reset", r.get(regError), 0)
	}
	r.enable()
	r.create(0)
	r.set(regControl, 0)
	r.settle()
	// Rings in two regions that touch, and the smallest.
	r.set8(regCmdRing, ramSplit-64)
	r.set8(regCplRing, ramHigh+0x1000-64)
	r.set(regCmdEntries, 2)
	r.set(regCplEntries, 2)
	r.set(regControl, controlEnable)
	r.want("status", r.get(regStatus), statusEnabled)
}

func TestBadIndices(t *testing.T) {
	for name, c := range map[string]struct {
		reg uint64
		v   uint32
		ok  bool
	}{
		"doorbell one too far":      {regDoorbell, 3 + entries + 1, false},
		"doorbell back":             {regDoorbell, 2, false},
		"doorbell far":              {regDoorbell, 1 << 31, false},
		"doorbell again":            {regDoorbell, 3, true},
		"completion that is not":    {regCplTaken, 4, false},
		"completions back":          {regCplTaken, 0, false},
		"completions far":           {regCplTaken, math.MaxUint32, false},
		"completions up to the end": {regCplTaken, 3, true},
		"completions again":         {regCplTaken, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := started(t)
			for range 3 {
				r.queue(cCommand{Opcode: opCreate})
			}
			r.ring()
			r.settle()
			r.set(regCplTaken, 1)
			r.set(c.reg, c.v)
			if c.ok {
				r.want("status", r.get(regStatus), statusEnabled)
				return
			}
			r.want("status", r.get(regStatus), statusEnabled|statusError)
			r.want("error", r.get(regError), ringBadIndex)
			if n := r.Metrics().RingErrors; n != 1 {
				t.Errorf("%d ring errors", n)
			}
			r.set(regDoorbell, 4)
			r.settle()
			r.want("taken after the error", r.get(regCmdTaken), 3)
			r.set(regControl, 0)
			r.settle()
			r.want("status after reset", r.get(regStatus), 0)
			r.dropMessages()
			r.enable()
			r.want("context after reset", r.create(0), 1)
		})
	}
}
