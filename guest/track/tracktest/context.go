package tracktest

import (
	"bytes"
	"maps"
	"math/bits"
	"slices"

	"github.com/fineline-vmm/fineline/guest/track/abi"
)

// context is one tracker in the device.
type context struct {
	m        *Machine
	mode     uint32
	count    bool
	started  bool
	ever     bool
	lines    map[uint64]uint64           // frame, its registered lines
	baseline map[uint64]*[pageBytes]byte // diff
	pending  map[uint64]uint64           // stores
	queue    []abi.Record                // found and not yet harvested
}

func (m *Machine) do(c abi.Command) abi.Completion {
	result, flags, status := m.answer(c)
	return abi.Completion{Result: result, Status: status, Flags: flags, Context: c.Context}
}

func (m *Machine) answer(c abi.Command) (result uint64, flags, status uint32) {
	if c.Op == abi.OpCreate {
		result, status = m.create(c.Flags)
		return result, 0, status
	}
	x := m.contexts[c.Context]
	if c.Op < abi.OpCreate || c.Op > abi.OpHarvest {
		return 0, 0, abi.ErrOpcode
	}
	if x == nil {
		return 0, 0, abi.ErrContext
	}
	switch c.Op {
	case abi.OpDestroy:
		delete(m.contexts, c.Context)
	case abi.OpRegister:
		status = x.ranges(c, x.register)
	case abi.OpUnregister:
		status = x.ranges(c, x.unregister)
	case abi.OpStart:
		status = x.start()
	case abi.OpStop:
		status = x.stop()
	case abi.OpHarvest:
		return x.harvest(c)
	}
	return 0, 0, status
}

func (m *Machine) create(flags uint32) (uint64, uint32) {
	mode := flags & abi.CreateModeMask
	if mode > abi.ModeStores || flags&^(abi.CreateModeMask|abi.CreateCountBytes) != 0 {
		return 0, abi.ErrFlags
	}
	if uint32(len(m.contexts)) >= m.MaxContexts {
		return 0, abi.ErrNoSpace
	}
	m.ids++
	m.contexts[m.ids] = &context{
		m: m, mode: mode, count: flags&abi.CreateCountBytes != 0,
		lines: map[uint64]uint64{}, baseline: map[uint64]*[pageBytes]byte{}, pending: map[uint64]uint64{},
	}
	return uint64(m.ids), abi.OK
}

// ranges calls do with each frame and its lines of the list, after it has checked all of them.
func (x *context) ranges(c abi.Command, do func(frame, lines uint64) uint32) uint32 {
	if c.Count == 0 || c.Count > abi.MaxCount {
		return abi.ErrCount
	}
	list := x.m.at(c.Address)
	if c.Address%8 != 0 || len(list) < int(c.Count)*abi.RangeBytes {
		return abi.ErrAddress
	}
	for i := range int(c.Count) {
		r := abi.GetRange(list[i*abi.RangeBytes:])
		if r.Bytes == 0 || (r.Address|r.Bytes)%lineBytes != 0 {
			return abi.ErrAddress
		}
		for a := r.Address; a < r.Address+r.Bytes; a += lineBytes {
			if x.m.frames[a/pageBytes] == nil {
				return abi.ErrAddress
			}
			if status := do(a/pageBytes, 1<<(a%pageBytes/lineBytes)); status != abi.OK {
				return status
			}
		}
	}
	if x.m.rangeCount() > x.m.MaxRanges {
		return abi.ErrNoSpace
	}
	return abi.OK
}

// rangeCount joins neighbours, by the page, which is all that the tests register.
func (m *Machine) rangeCount() uint32 {
	n := uint32(0)
	for _, x := range m.contexts {
		for frame := range x.lines {
			if _, ok := x.lines[frame-1]; !ok {
				n++
			}
		}
	}
	return n
}

// register leaves lines that are registered already as they are.
func (x *context) register(frame, lines uint64) uint32 {
	fresh := lines &^ x.lines[frame]
	x.lines[frame] |= lines
	x.begin(frame, fresh)
	return abi.OK
}

// begin makes the bytes of now what later ones are compared with.
func (x *context) begin(frame, lines uint64) {
	if x.baseline[frame] == nil {
		x.baseline[frame] = new([pageBytes]byte)
	}
	eachLine(lines, func(from, to int) { copy(x.baseline[frame][from:to], x.m.frames[frame][from:to]) })
}

func (x *context) unregister(frame, lines uint64) uint32 {
	if x.lines[frame]&lines != lines {
		return abi.ErrNotRegistered
	}
	x.lines[frame] &^= lines
	x.pending[frame] &^= lines
	for i := range x.queue {
		if x.queue[i].Page == frame*pageBytes {
			x.queue[i].Lines &^= lines
		}
	}
	x.queue = slices.DeleteFunc(x.queue, func(r abi.Record) bool { return r.Lines == 0 })
	if x.lines[frame] == 0 {
		delete(x.lines, frame)
		delete(x.baseline, frame)
	}
	return abi.OK
}

func eachLine(lines uint64, do func(from, to int)) {
	for ; lines != 0; lines &= lines - 1 {
		from := bits.TrailingZeros64(lines) * lineBytes
		do(from, from+lineBytes)
	}
}

func (x *context) start() uint32 {
	if x.started {
		return abi.ErrState
	}
	x.started, x.ever = true, true
	clear(x.pending)
	for frame, lines := range x.lines {
		x.begin(frame, lines)
	}
	return abi.OK
}

func (x *context) stop() uint32 {
	if !x.started {
		return abi.ErrState
	}
	x.look()
	x.started = false
	return abi.OK
}

func (x *context) stored(frame, lines uint64) {
	if x.mode == abi.ModeStores && x.started {
		if lines &= x.lines[frame]; lines != 0 {
			x.pending[frame] |= lines
		}
	}
}

// look moves what was written into the queue.
func (x *context) look() {
	for _, frame := range slices.Sorted(maps.Keys(x.lines)) {
		r := abi.Record{Page: frame * pageBytes, Lines: x.pending[frame]}
		if x.mode == abi.ModeDiff {
			r = x.compare(frame)
		}
		if r.Lines != 0 {
			x.queue = append(x.queue, r)
		}
	}
	clear(x.pending)
}

func (x *context) compare(frame uint64) abi.Record {
	r := abi.Record{Page: frame * pageBytes}
	if x.count {
		r.Flags = abi.RecordCounted
	}
	was, is := x.baseline[frame], x.m.frames[frame]
	eachLine(x.lines[frame], func(from, to int) {
		if bytes.Equal(was[from:to], is[from:to]) {
			return
		}
		r.Lines |= 1 << (from / lineBytes)
		for i := from; x.count && i < to; i++ {
			if was[i] != is[i] {
				r.ChangedBytes++
			}
		}
		copy(was[from:to], is[from:to])
	})
	return r
}

func (x *context) harvest(c abi.Command) (result uint64, flags, status uint32) {
	buf := x.m.at(c.Address)
	switch {
	case !x.ever:
		return 0, 0, abi.ErrState
	case c.Count == 0 || c.Count > abi.MaxCount:
		return 0, 0, abi.ErrCount
	case c.Address%8 != 0 || len(buf) < int(c.Count)*abi.RecordBytes:
		return 0, 0, abi.ErrAddress
	}
	if len(x.queue) == 0 && x.started {
		x.look()
	}
	n := min(len(x.queue), int(c.Count))
	for i, r := range x.queue[:n] {
		r.Put(buf[i*abi.RecordBytes:])
	}
	x.queue = x.queue[n:]
	if len(x.queue) > 0 {
		flags = abi.CompletionMore
	}
	return uint64(n), flags, abi.OK
}
