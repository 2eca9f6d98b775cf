package fpga

import (
	"context"
	"errors"
	"fmt"

	"github.com/fineline-vmm/fineline/coherence/track"
	"github.com/fineline-vmm/fineline/devices/pci"
)

// ErrState is wrapped by Restore when a saved state cannot be of this device.
var ErrState = errors.New("bad saved fpga state")

// errNotPaused: State was asked of a device whose worker may run.
var errNotPaused = errors.New("fpga: pause the device first")

// State is the saved form of a Device.
type State struct {
	Config     pci.ConfigState `json:"config"`
	Control    uint32          `json:"control"`
	Error      uint32          `json:"error"`
	CmdRing    uint64          `json:"cmd_ring"`
	CplRing    uint64          `json:"cpl_ring"`
	CmdEntries uint32          `json:"cmd_entries"`
	CplEntries uint32          `json:"cpl_entries"`
	Doorbell   uint32          `json:"doorbell"`
	CmdTaken   uint32          `json:"cmd_taken"`
	CplTaken   uint32          `json:"cpl_taken"`
	CplPut     uint32          `json:"cpl_put"`
	// Held is a completion that waits for bus mastering.
	Held *Completion `json:"held,omitempty"`
	// Contexts by number, less 1: an array, so that a file cannot have more of them.
	Contexts [MaxContexts]*ContextState `json:"contexts"`
}

// ContextState is the saved form of a context.
type ContextState struct {
	Flags   uint32             `json:"flags"` // of CREATE
	Started bool               `json:"started"`
	Armed   bool               `json:"armed"`
	Track   track.ContextState `json:"track"`
}

// State returns the state of a paused device. The device may go on after it. The error is
// a context's.
func (d *Device) State() (State, error) {
	d.ctl.Lock()
	defer d.ctl.Unlock()
	if !d.paused || d.closed {
		return State{}, errNotPaused
	}
	d.sweep() // what a reset left is not saved
	s, entries := d.copyRegisters()
	s.Config = d.Config.State()
	for i, e := range entries {
		if e == nil {
			continue
		}
		t, err := e.State()
		if err != nil {
			return State{}, fmt.Errorf("fpga: save context %d: %w", i+1, err)
		}
		s.Contexts[i] = &ContextState{Flags: e.flags, Started: e.started, Armed: e.armed, Track: t}
	}
	return s, nil
}

func (d *Device) copyRegisters() (State, [MaxContexts]*entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := &d.regs
	s := State{
		Control: r.control, Error: r.errorCode,
		CmdRing: r.cmdRing, CplRing: r.cplRing, CmdEntries: r.cmdEntries, CplEntries: r.cplEntries,
		Doorbell: r.doorbell, CmdTaken: r.cmdTaken, CplTaken: r.cplTaken, CplPut: r.cplPut,
	}
	if d.held != nil {
		held := *d.held
		s.Held = &held
	}
	return s, d.contexts
}

func (s *State) registers() registers {
	return registers{
		control: s.Control, errorCode: s.Error,
		cmdRing: s.CmdRing, cplRing: s.CplRing, cmdEntries: s.CmdEntries, cplEntries: s.CplEntries,
		doorbell: s.Doorbell, cmdTaken: s.CmdTaken, cplTaken: s.CplTaken, cplPut: s.CplPut,
	}
}

// Restore replaces the state and leaves the device paused; the vCPUs are parked, memory has its contents. The
// engine is to be resumed before the device. An error
// that wraps ErrState or pci.ErrState leaves the device unchanged; after an engine's error it is disabled, without
// contexts, and paused.
func (d *Device) Restore(s State) error {
	d.ctl.Lock()
	defer d.ctl.Unlock()
	mine, _ := d.pause(context.Background())
	if err := d.checkState(&s); err != nil {
		if mine {
			d.resume()
		}
		return err
	}
	d.clear()
	d.sweep()
	for i, c := range s.Contexts {
		if c == nil {
			continue
		}
		if err := d.restoreContext(i, c); err != nil {
			d.clear()
			d.sweep()
			return fmt.Errorf("fpga: restore context %d: %w", i+1, err)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.regs, d.held = s.registers(), s.Held
	return nil
}

func (d *Device) restoreContext(i int, c *ContextState) error {
	made, err := d.engine.restore(c.Track)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.contexts[i] = &entry{Context: made, flags: c.Flags, started: c.Started, armed: c.Armed}
	return nil
}

// checkState restores the configuration space last: it refuses for itself.
func (d *Device) checkState(s *State) error {
	if d.closed {
		return fmt.Errorf("%w: the device is closed", ErrState)
	}
	if err := s.check(d.checkRings); err != nil {
		return err
	}
	return d.Config.Restore(s.Config)
}

// check returns an error for what no guest could have brought about.
func (s *State) check(checkRings func(*registers) uint32) error {
	r := s.registers()
	switch {
	case s.Control&^controlMask != 0 || s.Error > ringBadIndex:
		return fmt.Errorf("%w: control %#x, error %d", ErrState, s.Control, s.Error)
	case !r.enabled():
		if s.Error != 0 || s.Held != nil || s.Doorbell|s.CmdTaken|s.CplTaken|s.CplPut != 0 || s.Contexts != [MaxContexts]*ContextState{} {
			return fmt.Errorf("%w: disabled and yet in use", ErrState)
		}
	case r.running():
		if err := s.checkRunning(&r, checkRings); err != nil {
			return err
		}
	case s.Held != nil:
		return fmt.Errorf("%w: a completion for rings in error", ErrState)
	}
	for i, c := range s.Contexts {
		if c == nil {
			continue
		}
		if _, err := options(c.Flags); err != nil || c.Armed && !c.Started {
			return fmt.Errorf("%w: context %d: flags %#x, started %v, armed %v", ErrState, i+1, c.Flags, c.Started, c.Armed)
		}
	}
	return nil
}

// checkRunning checks the invariants of registers.
func (s *State) checkRunning(r *registers, checkRings func(*registers) uint32) error {
	if code := checkRings(r); code != 0 {
		return fmt.Errorf("%w: rings at %#x and %#x of %d and %d entries: error %d", ErrState, r.cmdRing, r.cplRing, r.cmdEntries, r.cplEntries, code)
	}
	finished, room := r.cplPut, r.cplEntries
	if s.Held != nil {
		finished, room = finished+1, room-1
	}
	if r.doorbell-r.cmdTaken > r.cmdEntries || r.cplPut-r.cplTaken > room || r.cmdTaken != finished {
		return fmt.Errorf("%w: %d commands, %d taken, %d completed, %d of them taken", ErrState, r.doorbell, r.cmdTaken, r.cplPut, r.cplTaken)
	}
	return nil
}
