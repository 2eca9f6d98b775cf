package rtc

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// ErrState is wrapped by Restore when a saved state cannot be of this device.
var ErrState = errors.New("bad saved clock state")

// offsetLimitSeconds is beyond what any date registers set from any present: the
// furthest they say, in binary, is around the year 25800.
const offsetLimitSeconds = 40000 * 366 * 24 * 3600

// State is the saved form of a Device. Its time is relative to the host's, so the
// clock goes on while the state is in a file.
type State struct {
	Index         uint8  `json:"index"`
	Memory        []byte `json:"memory"`         // 128 bytes
	OffsetSeconds int64  `json:"offset_seconds"` // guest's time minus the host's
	OffsetNanos   int64  `json:"offset_nanos"`
	UpdateEnded   bool   `json:"update_ended"` // UF would be set
}

// State returns the device's state.
func (d *Device) State() State {
	d.mu.Lock()
	defer d.mu.Unlock()
	return State{
		Index: d.index, Memory: slices.Clone(d.memory[:]),
		OffsetSeconds: d.offset.seconds, OffsetNanos: d.offset.nanos,
		UpdateEnded: !d.held() && d.guestNow().Unix() != d.ended,
	}
}

// Restore replaces the state. The error wraps ErrState and leaves the device unchanged.
func (d *Device) Restore(s State) error {
	switch {
	case len(s.Memory) != memoryBytes:
		return fmt.Errorf("%w: %d bytes of memory, not %d", ErrState, len(s.Memory), memoryBytes)
	case s.Memory[regA]&aUIP != 0:
		return fmt.Errorf("%w: register A is %#x", ErrState, s.Memory[regA])
	case s.OffsetSeconds < -offsetLimitSeconds || s.OffsetSeconds > offsetLimitSeconds,
		s.OffsetNanos <= -int64(time.Second) || s.OffsetNanos >= int64(time.Second):
		return fmt.Errorf("%w: offset of %d s and %d ns", ErrState, s.OffsetSeconds, s.OffsetNanos)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.index = s.Index
	copy(d.memory[:], s.Memory)
	d.offset = offset{s.OffsetSeconds, s.OffsetNanos}
	d.ended = d.guestNow().Unix()
	if s.UpdateEnded {
		d.ended-- // any other second than this one
	}
	return nil
}
