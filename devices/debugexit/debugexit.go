package debugexit

import "github.com/fineline-vmm/fineline/devices"

// Where the device is on a PC, by convention of QEMU's users.
const (
	Port      = 0xf4
	SizeBytes = 4
)

// Device is the exit port.
type Device struct {
	request func(code uint32)
}

var _ devices.Device = (*Device)(nil)

// New returns the exit port. request is called on the vCPU's thread with the
// status the process should end with (written value<<1|1); it must not block.
func New(request func(code uint32)) *Device {
	return &Device{request: request}
}

// Read gives zeros, as QEMU does.
func (d *Device) Read(_ uint64, p []byte) { clear(p) }

// Write asks for the exit.
func (d *Device) Write(_ uint64, p []byte) {
	var v uint32
	for i, b := range p[:min(len(p), SizeBytes)] {
		v |= uint32(b) << (8 * i)
	}
	d.request(v<<1 | 1)
}

// State is empty: the device forgets a write as soon as it has asked.
type State struct{}

// State returns the empty state.
func (d *Device) State() State { return State{} }

// Restore accepts the empty state.
func (d *Device) Restore(State) error { return nil }
