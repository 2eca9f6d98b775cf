package fpga

import (
	"encoding/binary"
	"math/bits"

	"github.com/fineline-vmm/fineline/devices"
	"github.com/fineline-vmm/fineline/memory"
)

// registers are what the guest has set and the counts of the rings.
// Invariants while running: both rings are RAM, doorbell-cmdTaken <= cmdEntries,
// cplPut-cplTaken <= cplEntries, and every command taken has one completion put, held or to come.
type registers struct {
	control, errorCode     uint32
	cmdRing, cplRing       uint64
	cmdEntries, cplEntries uint32
	doorbell, cmdTaken     uint32
	cplTaken, cplPut       uint32
}

func (r *registers) enabled() bool { return r.control&controlEnable != 0 }

// running: enabled, and the rings can be used.
func (r *registers) running() bool { return r.enabled() && r.errorCode == 0 }

// bar is BAR 0.
type bar struct{ d *Device }

var _ devices.Device = bar{}

func (b bar) Read(off uint64, p []byte) {
	b.d.mu.Lock()
	defer b.d.mu.Unlock()
	clear(p)
	if !b.d.whole(off, p) {
		return
	}
	for i := 0; i < len(p); i += 4 {
		binary.LittleEndian.PutUint32(p[i:], b.d.word(off+uint64(i)))
	}
}

func (b bar) Write(off uint64, p []byte) {
	b.d.mu.Lock()
	defer b.d.mu.Unlock()
	if !b.d.whole(off, p) {
		return
	}
	for i := 0; i < len(p); i += 4 {
		b.d.setWord(off+uint64(i), binary.LittleEndian.Uint32(p[i:]))
	}
}

// whole admits an access to one register, or to half of a wide one, and counts others.
func (d *Device) whole(off uint64, p []byte) bool {
	switch len(p) {
	case 4:
		if off%4 == 0 && off < regsBytes {
			return true
		}
	case 8:
		if off == regCmdRing || off == regCplRing {
			return true
		}
	}
	d.metrics.BadAccesses++
	return false
}

func (d *Device) word(off uint64) uint32 {
	r := &d.regs
	switch off {
	case regID:
		return magic
	case regVersion:
		return abiVersion
	case regFeatures:
		return d.engine.features
	case regMaxContexts:
		return MaxContexts
	case regMaxRanges:
		return d.engine.maxRanges
	case regControl:
		return r.control
	case regStatus:
		return d.status()
	case regError:
		return r.errorCode
	case regCmdRing:
		return uint32(r.cmdRing)
	case regCmdRing + 4:
		return uint32(r.cmdRing >> 32)
	case regCplRing:
		return uint32(r.cplRing)
	case regCplRing + 4:
		return uint32(r.cplRing >> 32)
	case regCmdEntries:
		return r.cmdEntries
	case regCplEntries:
		return r.cplEntries
	case regCmdTaken:
		return r.cmdTaken
	case regCplTaken:
		return r.cplTaken
	case regCplPut:
		return r.cplPut
	}
	return 0 // the doorbell
}

// status says enabled until nothing of before a reset is left: then the guest may reuse its buffers.
func (d *Device) status() (s uint32) {
	if d.regs.enabled() || d.dropping || len(d.stale) > 0 {
		s |= statusEnabled
	}
	if d.regs.errorCode != 0 {
		s |= statusError
	}
	return s
}

func (d *Device) setWord(off uint64, v uint32) {
	r := &d.regs
	switch {
	case off == regControl:
		d.setControl(v & controlMask)
	case off == regDoorbell && r.running():
		d.advance(&r.doorbell, v, r.cmdTaken+r.cmdEntries)
	case off == regCplTaken && r.running():
		d.advance(&r.cplTaken, v, d.cplStored())
	case r.enabled(): // rings do not move under the worker
		d.metrics.IgnoredWrites++
	case off == regCmdRing:
		r.cmdRing = r.cmdRing>>32<<32 | uint64(v)
	case off == regCmdRing+4:
		r.cmdRing = uint64(v)<<32 | uint64(uint32(r.cmdRing))
	case off == regCplRing:
		r.cplRing = r.cplRing>>32<<32 | uint64(v)
	case off == regCplRing+4:
		r.cplRing = uint64(v)<<32 | uint64(uint32(r.cplRing))
	case off == regCmdEntries:
		r.cmdEntries = v
	case off == regCplEntries:
		r.cplEntries = v
	default:
		d.metrics.IgnoredWrites++
	}
}

// setControl enables, or resets; callers hold mu.
func (d *Device) setControl(v uint32) {
	was := d.regs.enabled()
	d.regs.control = v
	switch {
	case !was && d.regs.enabled():
		if code := d.checkRings(&d.regs); code != 0 {
			d.fail(code)
		}
	case was && !d.regs.enabled():
		d.metrics.Resets++
		d.drop()
	}
}

// checkRings returns 0 or why the rings are unusable.
func (d *Device) checkRings(r *registers) uint32 {
	switch {
	case badEntries(r.cmdEntries) || badEntries(r.cplEntries):
		return ringBadEntries
	case r.cmdRing%ringAlign != 0 || !d.mem.Contains(memory.GPA(r.cmdRing), uint64(r.cmdEntries)*commandBytes),
		r.cplRing%ringAlign != 0 || !d.mem.Contains(memory.GPA(r.cplRing), uint64(r.cplEntries)*completionBytes):
		return ringBadAddress
	}
	return 0
}

func badEntries(n uint32) bool {
	return n < minEntries || n > maxEntries || bits.OnesCount32(n) != 1
}

// advance moves an index of the guest's forward, to limit at most; callers hold mu. Counts wrap, so
// the distances are compared.
func (d *Device) advance(index *uint32, to, limit uint32) {
	if to-*index > limit-*index {
		d.fail(ringBadIndex)
		return
	}
	*index = to
	d.wakeUp()
}

// cplStored counts completions that the guest may have seen: one is in the ring before it is counted
// in CPL_PUT; callers hold mu.
func (d *Device) cplStored() uint32 {
	if d.putting {
		return d.regs.cplPut + 1
	}
	return d.regs.cplPut
}

// fail stops the rings until a reset; callers hold mu.
func (d *Device) fail(code uint32) {
	if d.regs.errorCode == 0 {
		d.regs.errorCode = code
		d.metrics.RingErrors++
	}
	d.held = nil
}

// drop is the reset's part that does not wait: nothing of before is seen again, except that a
// transfer under way ends. The worker closes the contexts. Callers hold mu and have cleared ENABLE.
func (d *Device) drop() {
	r := &d.regs
	d.epoch++
	d.dropping = d.busy
	d.held, d.putting = nil, false
	r.errorCode, r.doorbell, r.cmdTaken, r.cplTaken, r.cplPut = 0, 0, 0, 0, 0
	for i, e := range d.contexts {
		if e != nil {
			d.stale = append(d.stale, e)
			d.contexts[i] = nil
		}
	}
	d.wakeUp()
}
