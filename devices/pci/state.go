package pci

import (
	"errors"
	"fmt"
	"slices"
)

// ErrState is wrapped by Restore when a saved state cannot be of this device.
var ErrState = errors.New("bad saved pci state")

// State is the saved form of a Root. Functions other than the host bridge are saved
// by their devices.
type State struct {
	Address    uint32      `json:"address"`
	HostBridge ConfigState `json:"host_bridge"`
}

// ConfigState is the saved form of a Config.
type ConfigState struct {
	Registers []byte     `json:"registers"` // 256 bytes
	MSIX      *MSIXState `json:"msix,omitempty"`
}

// MSIXState is the saved form of an MSIX.
type MSIXState struct {
	Entries []MSIXEntry `json:"entries"`
	Pending []uint64    `json:"pending"` // one bit a vector
}

// MSIXEntry is one vector of a table.
type MSIXEntry struct {
	Address uint64 `json:"address"`
	Data    uint32 `json:"data"`
	Masked  bool   `json:"masked"`
}

// State returns the root's state.
func (r *Root) State() State {
	return State{Address: r.configAddress(), HostBridge: r.bridge.State()}
}

// Restore replaces the root's state. The error wraps ErrState and leaves it unchanged.
func (r *Root) Restore(s State) error {
	if s.Address&^addressMask != 0 {
		return fmt.Errorf("%w: config address %#x has reserved bits", ErrState, s.Address)
	}
	if err := r.bridge.Restore(s.HostBridge); err != nil {
		return fmt.Errorf("host bridge: %w", err)
	}
	r.setConfigAddress(s.Address)
	return nil
}

// Reset is the machine's reset of the root and its host bridge.
func (r *Root) Reset() {
	r.setConfigAddress(0)
	r.bridge.Reset()
}

// State returns the function's state.
func (c *Config) State() ConfigState {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := ConfigState{Registers: slices.Clone(c.regs[:])}
	if c.msix != nil {
		s.MSIX = c.msix.state()
	}
	return s
}

// Restore replaces the state and maps the BARs where they were. A state of another
// kind of function is refused: its fixed bits differ. The error wraps ErrState and
// leaves the function unchanged.
func (c *Config) Restore(s ConfigState) error {
	m, err := c.restore(s)
	if err != nil {
		return err
	}
	if m != nil {
		m.refresh(c)
	}
	return nil
}

func (c *Config) restore(s ConfigState) (*mapper, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(s.Registers) != configBytes {
		return nil, fmt.Errorf("%w: %d bytes of registers, not %d", ErrState, len(s.Registers), configBytes)
	}
	for i, v := range s.Registers {
		if (v^c.regs[i])&^c.writable[i] != 0 {
			return nil, fmt.Errorf("%w: another function: register %#x is %#x, not %#x", ErrState, i, v, c.regs[i])
		}
	}
	if (s.MSIX == nil) != (c.msix == nil) {
		return nil, fmt.Errorf("%w: only one side has MSI-X", ErrState)
	}
	if c.msix != nil {
		if err := c.msix.restore(s.MSIX); err != nil {
			return nil, err
		}
	}
	copy(c.regs[:], s.Registers)
	c.updateMSIX() // sends what was pending and may go
	return c.mapper, nil
}

func (m *MSIX) state() *MSIXState {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &MSIXState{Pending: slices.Clone(m.pending)}
	for _, e := range m.entries {
		s.Entries = append(s.Entries, MSIXEntry{
			Address: uint64(e[1])<<32 | uint64(e[0]), Data: e[entryDataWord], Masked: e[entryControl]&entryMasked != 0,
		})
	}
	return s
}

func (m *MSIX) restore(s *MSIXState) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(s.Entries) != len(m.entries) || len(s.Pending) != len(m.pending) {
		return fmt.Errorf("%w: %d vectors, not %d", ErrState, len(s.Entries), len(m.entries))
	}
	if spare := len(m.entries) % pbaBitsPerEntry; spare != 0 && s.Pending[len(s.Pending)-1]>>spare != 0 {
		return fmt.Errorf("%w: a vector beyond the table is pending", ErrState)
	}
	for v, e := range s.Entries {
		if e.Address&3 != 0 {
			return fmt.Errorf("%w: vector %d has address %#x", ErrState, v, e.Address)
		}
	}
	for v, e := range s.Entries {
		m.entries[v] = [4]uint32{uint32(e.Address), uint32(e.Address >> 32), e.Data, 0}
		if e.Masked {
			m.entries[v][entryControl] = entryMasked
		}
	}
	copy(m.pending, s.Pending)
	return nil
}
