package vmm

import (
	"errors"
	"fmt"
)

// Checkpoint saves a machine that runs: it holds the guest still, saves it, calls gather, which may copy what memory the guest
// has written, and lets the guest go on if it ran. Nobody else pauses, resumes or ends the machine
// meanwhile. The sealed state is that of Save; resume is in it if the guest ran. While a vCPU is within an instruction
// that waits for missing memory the error wraps memory.ErrMissing, and gather is not called.
func (m *Machine) Checkpoint(gather func() error) (sealed []byte, err error) {
	s, err := m.checkpoint(gather)
	if err != nil {
		return nil, err
	}
	return s.seal() // while the guest runs
}

func (m *Machine) checkpoint(gather func() error) (s *state, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ran := m.status == Running
	if err := m.pause(); err != nil {
		return nil, err
	}
	if m.status != Paused {
		return nil, errNotPaused
	}
	if ran {
		defer func() { err = errors.Join(err, m.resume()) }()
	}
	if err := m.allParked(); err != nil {
		return nil, fmt.Errorf("save the machine: %w", err)
	}
	if s, err = m.save(); err != nil {
		return nil, err
	}
	s.resume = ran
	return s, gather()
}
