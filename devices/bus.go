package devices

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
)

// Errors of Insert and Remove, to be tested with errors.Is.
var (
	ErrOverlap  = errors.New("range overlaps another device")
	ErrBadRange = errors.New("range is empty or wraps")
	ErrNoDevice = errors.New("no device at this base")
)

// Bus routes accesses in one address space (ports or MMIO) to devices.
// All methods may be called from any goroutine.
type Bus struct {
	name   string
	claims atomic.Pointer[[]*claim] // sorted by base, never changed in place

	mu sync.Mutex // serialises Insert and Remove

	unclaimedReads  atomic.Uint64
	unclaimedWrites atomic.Uint64
}

// BusMetrics counts accesses that no device claimed.
type BusMetrics struct {
	UnclaimedReads  uint64 `json:"unclaimed_reads"`
	UnclaimedWrites uint64 `json:"unclaimed_writes"`
}

// NewBus returns an empty bus; name appears in its errors.
func NewBus(name string) *Bus {
	b := &Bus{name: name}
	b.claims.Store(new([]*claim))
	return b
}

// Insert gives d the addresses base to base+sizeBytes-1. The error wraps
// ErrBadRange or ErrOverlap and leaves the bus unchanged.
func (b *Bus) Insert(base, sizeBytes uint64, d Device) error {
	last := base + sizeBytes - 1
	if sizeBytes == 0 || last < base {
		return fmt.Errorf("%s bus: insert %#x bytes at %#x: %w", b.name, sizeBytes, base, ErrBadRange)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	old := *b.claims.Load()
	// The first claim that does not end before base is the only one to check.
	i := sort.Search(len(old), func(i int) bool { return old[i].last >= base })
	if i < len(old) && old[i].base <= last {
		return fmt.Errorf("%s bus: insert %#x-%#x: %w at %#x-%#x",
			b.name, base, last, ErrOverlap, old[i].base, old[i].last)
	}
	claims := slices.Insert(slices.Clone(old), i, newClaim(base, last, d))
	b.claims.Store(&claims)
	return nil
}

// Remove takes the claim that starts at base off the bus and waits until no
// access is inside its device. It must not be called from such an access.
// The error wraps ErrNoDevice.
func (b *Bus) Remove(base uint64) error {
	c, err := b.unlist(base)
	if err != nil {
		return err
	}
	c.drain()
	return nil
}

func (b *Bus) unlist(base uint64) (*claim, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := *b.claims.Load()
	i := sort.Search(len(old), func(i int) bool { return old[i].base >= base })
	if i == len(old) || old[i].base != base {
		return nil, fmt.Errorf("%s bus: remove %#x: %w", b.name, base, ErrNoDevice)
	}
	claims := slices.Delete(slices.Clone(old), i, i+1)
	b.claims.Store(&claims)
	return old[i], nil
}

// Read fills p from the device that claims all of addr to addr+len(p)-1.
// Without one it fills p with ones, as a bus that nobody drives, and returns false.
func (b *Bus) Read(addr uint64, p []byte) bool {
	if c := b.lookup(addr, len(p)); c != nil && c.enter() {
		c.dev.Read(addr-c.base, p)
		c.leave()
		return true
	}
	for i := range p {
		p[i] = 0xff
	}
	b.unclaimedReads.Add(1)
	return false
}

// Write hands p to the device that claims all of addr to addr+len(p)-1 and
// returns false when there is none.
func (b *Bus) Write(addr uint64, p []byte) bool {
	if c := b.lookup(addr, len(p)); c != nil && c.enter() {
		c.dev.Write(addr-c.base, p)
		c.leave()
		return true
	}
	b.unclaimedWrites.Add(1)
	return false
}

// Metrics returns the counters of accesses that nobody claimed.
func (b *Bus) Metrics() BusMetrics {
	return BusMetrics{UnclaimedReads: b.unclaimedReads.Load(), UnclaimedWrites: b.unclaimedWrites.Load()}
}

// lookup returns the claim that holds sizeBytes bytes at addr, or nil.
func (b *Bus) lookup(addr uint64, sizeBytes int) *claim {
	claims := *b.claims.Load()
	lo, hi := 0, len(claims)
	for lo < hi { // first claim whose last address is not below addr
		mid := int(uint(lo+hi) / 2)
		if claims[mid].last < addr {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == len(claims) || claims[lo].base > addr || sizeBytes == 0 {
		return nil
	}
	// Compare lengths, not addresses: addr+sizeBytes may wrap at 2^64.
	if claims[lo].last-addr < uint64(sizeBytes)-1 {
		return nil
	}
	return claims[lo]
}
