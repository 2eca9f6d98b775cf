package power

import (
	"math/bits"
	"sync"
	"time"

	"github.com/fineline-vmm/fineline/devices"
)

// Event is what a guest asks of its machine.
type Event int

// The events. The zero Event is invalid.
const (
	Poweroff Event = iota + 1
	Reset
)

// String returns the event's name for messages.
func (e Event) String() string {
	switch e {
	case Poweroff:
		return "poweroff"
	case Reset:
		return "reset"
	}
	return "invalid"
}

// Ports, and what the ACPI tables must say about them.
const (
	Base      = 0x600 // of the whole block: event, control, timer
	SizeBytes = 12

	EventPort      = 0x600
	EventBytes     = 4
	ControlPort    = 0x604
	ControlBytes   = 2
	TimerPort      = 0x608
	TimerBytes     = 4
	ResetPort      = 0xcf9
	ResetBytes     = 1
	ResetValue     = 0x06
	SleepTypeS5    = 0
	SCIInterrupt   = 9
	TimerHz        = 3579545
	timerBits      = 24
	timerStatusBit = 1 << (timerBits - 1) // its change sets TMR_STS
)

// Bits of the PM1 registers, ACPI 6.4 tables 4.15 to 4.17.
const (
	statusTimer        = 1 << 0
	statusPowerButton  = 1 << 8
	statusMask         = statusTimer | statusPowerButton
	enableMask         = 1<<0 | 1<<5 | 1<<8 | 1<<9 | 1<<10 | 1<<14
	controlSCIEnable   = 1 << 0
	controlSleepEnable = 1 << 13
	controlSleepShift  = 10
	controlMask        = 1<<1 | 7<<controlSleepShift // BM_RLD, SLP_TYP
)

// Device is the ACPI block at Base. ResetControl is its companion at ResetPort.
type Device struct {
	request func(Event)
	sci     devices.Line
	clock   func() time.Duration

	mu      sync.Mutex
	status  uint16
	enable  uint16
	control uint16
	reset   uint8         // last value at ResetPort without the trigger bit
	origin  time.Duration // clock value at which the timer was zero
	seenMSB bool          // timer's top bit when TMR_STS was last looked at
	level   bool          // of sci
	metrics Metrics
}

// Metrics counts what a guest did that has no effect.
type Metrics struct {
	BadSleepTypes uint64 `json:"bad_sleep_types"` // SLP_EN with a type that is not S5
}

var _ devices.Device = (*Device)(nil)

// New returns the power block. request is called on the vCPU's thread and must
// not block; it may be called more than once. sci is level-triggered, active high
// at the line (the tables say what the pin is). clock is monotonic; its zero does
// not matter. nil sci and clock mean no interrupt and the process's own clock.
func New(request func(Event), sci devices.Line, clock func() time.Duration) *Device {
	if sci == nil {
		sci = devices.NoLine
	}
	if clock == nil {
		start := time.Now()
		clock = func() time.Duration { return time.Since(start) }
	}
	return &Device{request: request, sci: sci, clock: clock, origin: clock()}
}

// PressPowerButton tells the guest that its power button was pressed; a guest
// with ACPI then shuts down by itself.
func (d *Device) PressPowerButton() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.status |= statusPowerButton
	d.updateSCI()
}

// Metrics returns a copy of the counters.
func (d *Device) Metrics() Metrics {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.metrics
}

// Read implements devices.Device.
func (d *Device) Read(off uint64, p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	// One image, so that a four byte read of the timer is one instant.
	ticks := d.ticks()
	d.latchTimer(ticks)
	control := d.control | controlSCIEnable
	timer := uint32(ticks) & (1<<timerBits - 1)
	image := [SizeBytes]byte{
		byte(d.status), byte(d.status >> 8), byte(d.enable), byte(d.enable >> 8),
		byte(control), byte(control >> 8), 0, 0,
		byte(timer), byte(timer >> 8), byte(timer >> 16), 0,
	}
	copy(p, image[off:])
}

// Write implements devices.Device.
func (d *Device) Write(off uint64, p []byte) {
	if d.write(off, p) {
		d.request(Poweroff)
	}
}

// write reports whether the guest asked for S5.
func (d *Device) write(off uint64, p []byte) (poweroff bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.latchTimer(d.ticks())
	for i, b := range p {
		switch reg := off + uint64(i); reg {
		case 0, 1:
			d.status &^= uint16(b) << (8 * reg)
		case 2, 3:
			d.enable = setByte(d.enable, reg-2, b) & enableMask
		case 4, 5:
			written := setByte(d.control, reg-4, b)
			d.control = written & controlMask
			if written&controlSleepEnable != 0 {
				poweroff = d.sleep() || poweroff
			}
		}
	}
	d.updateSCI()
	return poweroff
}

// sleep reports whether the sleep type is S5; no other state is offered in the DSDT.
func (d *Device) sleep() bool {
	if d.control>>controlSleepShift&7 == SleepTypeS5 {
		return true
	}
	d.metrics.BadSleepTypes++
	return false
}

// updateSCI drives the line to what status and enable say; callers hold mu.
func (d *Device) updateSCI() {
	level := d.status&d.enable&statusMask != 0
	if level != d.level {
		d.level = level
		d.sci.Set(level)
	}
}

// latchTimer sets TMR_STS when the top bit changed since the last look; callers hold mu.
func (d *Device) latchTimer(ticks uint64) {
	msb := ticks&timerStatusBit != 0
	if msb != d.seenMSB {
		d.seenMSB = msb
		d.status |= statusTimer
		d.updateSCI()
	}
}

// ticks is the timer without its 24 bit limit; callers hold mu.
func (d *Device) ticks() uint64 {
	return ticksOf(d.clock() - d.origin)
}

// ticksOf converts exactly: the product needs more than 64 bits after 43 minutes.
func ticksOf(elapsed time.Duration) uint64 {
	hi, lo := bits.Mul64(uint64(max(elapsed, 0)), TimerHz)
	q, _ := bits.Div64(hi, lo, uint64(time.Second))
	return q
}

// setByte returns v with its byte n (0 or 1) replaced.
func setByte(v uint16, n uint64, b byte) uint16 {
	return v&^(0xff<<(8*n)) | uint16(b)<<(8*n)
}
