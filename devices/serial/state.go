package serial

import (
	"errors"
	"fmt"
	"slices"
)

// ErrState is wrapped by Restore when a saved state cannot be of this device.
var ErrState = errors.New("bad saved serial state")

// State is the saved form of a Device.
type State struct {
	IER         uint8  `json:"ier"`
	FCR         uint8  `json:"fcr"`
	LCR         uint8  `json:"lcr"`
	MCR         uint8  `json:"mcr"`
	MSR         uint8  `json:"msr"`
	SCR         uint8  `json:"scr"`
	DLL         uint8  `json:"dll"`
	DLM         uint8  `json:"dlm"`
	Overrun     bool   `json:"overrun"`
	THREPending bool   `json:"thre_pending"`
	RX          []byte `json:"rx"` // received, not read by the guest; at most 16 bytes
	TX          []byte `json:"tx"` // sent by the guest, not taken by the host; at most QueueBytes
}

// State returns the device's state. Call Pause first: of a running device, TX may
// reach the host after this and be there twice.
func (d *Device) State() State {
	d.mu.Lock()
	defer d.mu.Unlock()
	return State{
		IER: d.ier, FCR: d.fcr, LCR: d.lcr, MCR: d.mcr, MSR: d.msr, SCR: d.scr, DLL: d.dll, DLM: d.dlm,
		Overrun: d.overrun, THREPending: d.threPending,
		RX: slices.Clone(d.rx), TX: d.tx.bytes(),
	}
}

// check returns an error for what no guest could have brought about.
func (s *State) check() error {
	rxLimit := fifoBytes
	if s.FCR&fcrEnable == 0 {
		rxLimit = 1
	}
	switch {
	case s.IER&^ierMask != 0, s.MCR&^mcrMask != 0, s.FCR&^fcrKept != 0, s.FCR&fcrEnable == 0 && s.FCR != 0:
		return fmt.Errorf("%w: reserved bits are set", ErrState)
	case s.MSR&^msrDeltas != modemInputs(s.MCR):
		return fmt.Errorf("%w: modem status %#x does not go with modem control %#x", ErrState, s.MSR, s.MCR)
	case len(s.RX) > rxLimit:
		return fmt.Errorf("%w: %d received bytes, at most %d fit", ErrState, len(s.RX), rxLimit)
	case len(s.TX) > QueueBytes:
		return fmt.Errorf("%w: %d unsent bytes, at most %d fit", ErrState, len(s.TX), QueueBytes)
	case s.THREPending && len(s.TX) > QueueBytes-fifoBytes:
		return fmt.Errorf("%w: transmitter interrupt with the transmitter full", ErrState)
	}
	return nil
}

// Restore replaces the state, drives the line and leaves the device paused, so that
// nothing is printed before Resume. It must be new or paused: ErrState is wrapped
// also when it is writing. An error leaves the device unchanged.
func (d *Device) Restore(s State) error {
	if err := s.check(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.writing {
		return fmt.Errorf("%w: the device is writing, pause it first", ErrState)
	}
	d.paused = true
	d.ier, d.fcr, d.lcr, d.mcr, d.msr, d.scr = s.IER, s.FCR, s.LCR, s.MCR, s.MSR, s.SCR
	d.dll, d.dlm = s.DLL, s.DLM
	d.overrun, d.threPending = s.Overrun, s.THREPending
	d.rx = append(d.rx[:0], s.RX...)
	d.tx = queue{}
	for _, b := range s.TX {
		d.tx.push(b)
	}
	d.level = d.cause() != iirNone
	d.line.Set(d.level)
	return nil
}
