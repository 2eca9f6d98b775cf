package fpga

import (
	"errors"
	"fmt"

	"github.com/fineline-vmm/fineline/coherence/track"
)

// allowedFlags by opcode; an opcode that is not here is unknown.
var allowedFlags = map[uint32]uint32{
	opCreate:     createModeMask | createCountBytes,
	opDestroy:    0,
	opRegister:   0,
	opUnregister: 0,
	opStart:      0,
	opStop:       0,
	opHarvest:    harvestNoSnoop,
}

// execute does one command. Preconditions: the turn is held.
func (d *Device) execute(epoch uint64, c command) Completion {
	done := Completion{Cookie: c.cookie, Context: c.context}
	done.Status = uint32(d.statusOf(c, d.do(epoch, c, &done)))
	return done
}

// do checks in the order of the header's statuses, but COUNT before ADDRESS. Fields that a
// command does not use are not looked at.
func (d *Device) do(epoch uint64, c command, done *Completion) error {
	allowed, known := allowedFlags[c.opcode]
	switch {
	case !known:
		return errOpcode
	case c.flags&^allowed != 0 || c.reserved:
		return errFlags
	case c.opcode == opCreate:
		return d.create(epoch, c, done)
	case c.opcode == opDestroy:
		return d.destroy(epoch, c)
	}
	e := d.find(epoch, c.context)
	if e == nil {
		return errContext
	}
	switch c.opcode {
	case opRegister:
		return d.withRanges(epoch, c, e.Register)
	case opUnregister:
		return d.withRanges(epoch, c, e.Unregister)
	case opStart:
		return e.start()
	case opStop:
		return e.stop()
	default:
		return d.harvest(epoch, c, e, done)
	}
}

// statusOf translates an error for the guest. What it cannot name goes to the log.
func (d *Device) statusOf(c command, err error) status {
	var s status
	switch {
	case err == nil:
		return statusOK
	case errors.As(err, &s):
		return s
	case errors.Is(err, track.ErrBadMode):
		return errFlags
	case errors.Is(err, track.ErrBadRange):
		return errAddress
	case errors.Is(err, track.ErrNotRegistered):
		return errNotRegistered
	case errors.Is(err, track.ErrState):
		return errState
	case errors.Is(err, track.ErrNoSpace):
		return errNoSpace
	}
	d.log(fmt.Errorf("fpga: command %d of context %d: %w", c.opcode, c.context, err))
	return errHost
}

// options are what the flags of CREATE ask for.
func options(flags uint32) (track.ContextOptions, error) {
	mode := flags & createModeMask
	count := flags&createCountBytes != 0
	if flags&^(createModeMask|createCountBytes) != 0 || mode > uint32(track.Homed) || count && mode != uint32(track.Diff) {
		return track.ContextOptions{}, errFlags
	}
	return track.ContextOptions{Mode: track.Mode(mode), CountBytes: count}, nil
}

// create makes a context. Its number is the lowest that is free, from 1.
func (d *Device) create(epoch uint64, c command, done *Completion) error {
	o, err := options(c.flags)
	if err != nil {
		return err
	}
	if !d.hasRoom() {
		return errNoSpace
	}
	made, err := d.engine.make(o)
	if err != nil {
		return err
	}
	done.Context = d.attach(epoch, &entry{Context: made, flags: c.flags})
	done.Result = uint64(done.Context)
	return nil
}

func (d *Device) hasRoom() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.contexts {
		if e == nil {
			return true
		}
	}
	return false
}

// attach returns the number of a new context, which after a reset only waits to be closed.
// Preconditions: there is room; only the holder of the turn takes it away.
func (d *Device) attach(epoch uint64, e *entry) uint32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if epoch == d.epoch {
		for i := range d.contexts {
			if d.contexts[i] == nil {
				d.contexts[i] = e
				return uint32(i + 1)
			}
		}
	}
	d.stale = append(d.stale, e)
	return 0
}

func (d *Device) destroy(epoch uint64, c command) error {
	e := d.detach(epoch, c.context)
	if e == nil {
		return errContext
	}
	return e.Close()
}

// find returns a context of the guest's, or nil. A reset does not close it before the turn ends.
func (d *Device) find(epoch uint64, context uint32) *entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lookup(epoch, context)
}

// detach is find that takes the context away from the guest; after a reset it is stale, and closed as such.
func (d *Device) detach(epoch uint64, context uint32) *entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.lookup(epoch, context)
	if e != nil {
		d.contexts[context-1] = nil
	}
	return e
}

// lookup: callers hold mu.
func (d *Device) lookup(epoch uint64, context uint32) *entry {
	if epoch != d.epoch || context < 1 || context > MaxContexts {
		return nil
	}
	return d.contexts[context-1]
}

func (e *entry) start() error {
	if e.armed {
		return errState
	}
	if err := e.Arm(); err != nil {
		return err
	}
	e.started, e.armed = true, true
	return nil
}

func (e *entry) stop() error {
	if !e.armed {
		return errState
	}
	if err := e.Stop(); err != nil {
		return err
	}
	e.armed = false
	return nil
}
