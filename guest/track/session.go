package track

import (
	"errors"
	"fmt"
	"sync"

	"github.com/fineline-vmm/fineline/guest/track/driver"
	"github.com/fineline-vmm/fineline/guest/track/follow"
	"github.com/fineline-vmm/fineline/guest/track/procmem"
)

// deviceSession is a Session of a Device.
type deviceSession struct {
	mu       sync.Mutex
	space    AddressSpace
	context  *driver.Context
	follower *follow.Follower
	choice   Mappings
	listed   []Range // as follow.Normalize returns them
	started  bool
	ever     bool
	closed   bool
}

func (s *deviceSession) Add(ranges ...Range) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	added, err := follow.Normalize(ranges)
	if err != nil {
		return err
	}
	mappings, err := s.space.Mappings()
	if err != nil {
		return err
	}
	if outside := follow.Subtract(added, rangesOf(mappings, procmem.Mapping.Tracked)); len(outside) > 0 {
		return fmt.Errorf("%w: %d bytes at %#x", ErrNotMapped, outside[0].Bytes, outside[0].Address)
	}
	listed, err := follow.Normalize(append(added, s.listed...))
	if err != nil {
		return err
	}
	if follow.Bytes(listed) > follow.MaxBytes {
		return ErrTooLarge
	}
	s.listed = listed
	if err := s.apply(mappings); err != nil || !s.started {
		return err
	}
	return s.follower.Enrol(added)
}

func (s *deviceSession) Remove(ranges ...Range) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	removed, err := follow.Normalize(ranges)
	if err != nil {
		return err
	}
	mappings, err := s.space.Mappings()
	if err != nil {
		return err
	}
	s.listed = follow.Subtract(s.listed, removed)
	return s.apply(mappings)
}

// apply sets what is followed to what is listed and chosen. s.mu is held.
func (s *deviceSession) apply(mappings []procmem.Mapping) error {
	ranges := s.listed
	switch s.choice {
	case FollowPrivate:
		ranges = append(rangesOf(mappings, func(m procmem.Mapping) bool { return m.Tracked() && m.Private() && !huge(m) }), ranges...)
	case FollowWritable:
		ranges = append(rangesOf(mappings, func(m procmem.Mapping) bool { return m.Tracked() && !huge(m) }), ranges...)
	}
	return s.follower.SetRanges(ranges)
}

func huge(m procmem.Mapping) bool { return m.End-m.Start > MaxMappingBytes }

func rangesOf(mappings []procmem.Mapping, chosen func(procmem.Mapping) bool) []Range {
	var ranges []Range
	for _, m := range mappings {
		if chosen(m) {
			ranges = append(ranges, Range{Address: m.Start, Bytes: m.End - m.Start})
		}
	}
	joined, err := follow.Normalize(ranges)
	if err != nil {
		return nil // [vsyscall] is not writable, and nothing else is outside a program's addresses
	}
	return joined
}

// refresh follows the mappings of now. s.mu is held.
func (s *deviceSession) refresh() error {
	if s.choice == FollowNothing {
		return nil
	}
	mappings, err := s.space.Mappings()
	if err != nil {
		return err
	}
	return s.apply(mappings)
}

func (s *deviceSession) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return ErrClosed
	case s.started:
		return fmt.Errorf("start: %w: it has started", ErrState)
	}
	if err := s.refresh(); err != nil {
		return err
	}
	if err := s.follower.Start(); err != nil {
		return err
	}
	s.started, s.ever = true, true
	return nil
}

func (s *deviceSession) Harvest() (*Report, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, ErrClosed
	case !s.ever:
		return nil, fmt.Errorf("harvest: %w: it has not started", ErrState)
	}
	if err := s.refresh(); err != nil {
		return nil, err
	}
	return s.follower.Harvest()
}

func (s *deviceSession) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return ErrClosed
	case !s.started:
		return fmt.Errorf("stop: %w: it has not started", ErrState)
	}
	if err := s.context.Stop(); err != nil {
		return err
	}
	s.started = false
	return nil
}

func (s *deviceSession) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	err := s.context.Destroy()
	if errors.Is(err, driver.ErrClosed) {
		err = nil // with the device all of its contexts went
	}
	return errors.Join(err, s.space.Close())
}
