package track

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/guest/track/follow"
)

// lockedSession locks what is listed of the own process.
type lockedSession struct {
	Session
	mu     sync.Mutex
	locked []Range
}

func (s *lockedSession) Add(ranges ...Range) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ranges, err := follow.Normalize(ranges)
	if err != nil {
		return err
	}
	fresh := follow.Subtract(ranges, s.locked)
	for i, r := range fresh {
		if err := lock(r); err != nil {
			return errors.Join(err, unlock(fresh[:i]))
		}
	}
	if err := s.Session.Add(ranges...); err != nil {
		return errors.Join(err, unlock(fresh))
	}
	s.locked, err = follow.Normalize(append(fresh, s.locked...))
	return err
}

func (s *lockedSession) Remove(ranges ...Range) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ranges, err := follow.Normalize(ranges)
	if err != nil {
		return err
	}
	if err := s.Session.Remove(ranges...); err != nil {
		return err
	}
	left := follow.Subtract(s.locked, ranges)
	gone := follow.Subtract(s.locked, left)
	s.locked = left
	return unlock(gone)
}

func (s *lockedSession) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	locked := s.locked
	s.locked = nil
	return errors.Join(s.Session.Close(), unlock(locked))
}

func lock(r Range) error {
	_, _, errno := unix.Syscall(unix.SYS_MLOCK, uintptr(r.Address), uintptr(r.Bytes), 0)
	switch errno {
	case 0:
		return nil
	case unix.EPERM, unix.EAGAIN:
		return fmt.Errorf("lock %d bytes at %#x (raise RLIMIT_MEMLOCK): %w", r.Bytes, r.Address, errno)
	case unix.ENOMEM: // the limit, or no memory there
		return fmt.Errorf("lock %d bytes at %#x (RLIMIT_MEMLOCK is reached, or it is not all mapped): %w", r.Bytes, r.Address, errno)
	}
	return fmt.Errorf("lock %d bytes at %#x: %w", r.Bytes, r.Address, errno)
}

// unlock unlocks what is still there.
func unlock(ranges []Range) error {
	for _, r := range ranges {
		_, _, errno := unix.Syscall(unix.SYS_MUNLOCK, uintptr(r.Address), uintptr(r.Bytes), 0)
		if errno != 0 && errno != unix.ENOMEM {
			return fmt.Errorf("unlock %d bytes at %#x: %w", r.Bytes, r.Address, errno)
		}
	}
	return nil
}
