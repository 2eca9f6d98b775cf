package power

import (
	"errors"
	"fmt"
	"time"
)

// ErrState is wrapped by Restore when a saved state cannot be of this device.
var ErrState = errors.New("bad saved power state")

// State is the saved form of a Device.
type State struct {
	Status    uint16 `json:"status"`
	Enable    uint16 `json:"enable"`
	Control   uint16 `json:"control"`
	Reset     uint8  `json:"reset"`
	ElapsedNS int64  `json:"elapsed_ns"` // of the PM timer, since it was zero
	SeenMSB   bool   `json:"seen_msb"`   // timer's top bit when TMR_STS was last updated
}

// State returns the device's state. The vCPUs should be stopped: the timer runs on.
func (d *Device) State() State {
	d.mu.Lock()
	defer d.mu.Unlock()
	return State{
		Status: d.status, Enable: d.enable, Control: d.control, Reset: d.reset,
		ElapsedNS: int64(max(d.clock()-d.origin, 0)), SeenMSB: d.seenMSB,
	}
}

// Restore replaces the state and drives SCI. The PM timer goes on from the saved
// value. The error wraps ErrState and leaves the device unchanged.
func (d *Device) Restore(s State) error {
	switch {
	case s.Status&^statusMask != 0, s.Enable&^enableMask != 0, s.Control&^controlMask != 0, s.Reset&^resetMask != 0:
		return fmt.Errorf("%w: reserved bits are set", ErrState)
	case s.ElapsedNS < 0:
		return fmt.Errorf("%w: PM timer ran for %d ns", ErrState, s.ElapsedNS)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.status, d.enable, d.control, d.reset = s.Status, s.Enable, s.Control, s.Reset
	d.seenMSB = s.SeenMSB
	d.origin = d.clock() - time.Duration(s.ElapsedNS)
	d.level = d.status&d.enable&statusMask != 0
	d.sci.Set(d.level)
	return nil
}

// Reset is the machine's reset: registers go to their power-on values; the timer,
// which guests use as a clock only by differences, runs on.
func (d *Device) Reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.status, d.enable, d.control, d.reset = 0, 0, 0, 0
	d.updateSCI()
}
