package devices

import "sync/atomic"

// closedBias is subtracted from a claim's access count when it is removed, so
// that one addition both counts an access and tells whether it may go on.
const closedBias = 1 << 62

// claim is one device's range on a bus.
// Invariant: accesses is the number of accesses inside, minus closedBias once removed.
type claim struct {
	base, last uint64
	dev        Device
	accesses   atomic.Int64
	idle       chan struct{} // holds a token when a removed claim may have become empty
}

func newClaim(base, last uint64, d Device) *claim {
	return &claim{base: base, last: last, dev: d, idle: make(chan struct{}, 1)}
}

// enter reports whether the access may go into the device; then leave must follow.
func (c *claim) enter() bool {
	if c.accesses.Add(1) > 0 {
		return true
	}
	c.leave()
	return false
}

func (c *claim) leave() {
	if c.accesses.Add(-1) == -closedBias {
		select {
		case c.idle <- struct{}{}:
		default:
		}
	}
}

// drain closes the claim to new accesses and waits for those inside.
func (c *claim) drain() {
	if c.accesses.Add(-closedBias) == -closedBias {
		return
	}
	// Refused accesses move the count too, so the token may come late and a
	// second one may stay behind, but the count at -closedBias even once means
	// that every access that was inside has left.
	<-c.idle
}
