package power

import "github.com/fineline-vmm/fineline/devices"

// Bits of the reset control register; the trigger bit resets when written as one.
const (
	resetTrigger = 1 << 2
	resetMask    = 1<<1 | 1<<3 // system reset, full reset: stored, both mean the same here
)

// resetControl is the byte at 0xcf9.
type resetControl struct{ d *Device }

// ResetControl is the device of one byte at ResetPort. On a PC that port lies
// inside the PCI address port, so it is given to the PCI root, not to the bus.
func (d *Device) ResetControl() devices.Device { return resetControl{d} }

func (r resetControl) Read(_ uint64, p []byte) {
	r.d.mu.Lock()
	defer r.d.mu.Unlock()
	for i := range p {
		p[i] = r.d.reset
	}
}

func (r resetControl) Write(_ uint64, p []byte) {
	if len(p) == 0 {
		return
	}
	r.d.mu.Lock()
	r.d.reset = p[0] & resetMask
	r.d.mu.Unlock()
	if p[0]&resetTrigger != 0 {
		r.d.request(Reset)
	}
}
