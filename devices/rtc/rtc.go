package rtc

import (
	"sync"
	"time"

	"github.com/fineline-vmm/fineline/devices"
)

// Where the clock is on a PC.
const (
	Port       = 0x70
	SizeBytes  = 2
	IRQ        = 8 // the tables name it; this device never raises it
	CenturyReg = 0x32
)

// Registers, by index.
const (
	regSeconds    = 0x00
	regMinutes    = 0x02
	regHours      = 0x04
	regWeekday    = 0x06
	regDay        = 0x07
	regMonth      = 0x08
	regYear       = 0x09
	regA          = 0x0a
	regB          = 0x0b
	regC          = 0x0c
	regD          = 0x0d
	memoryBytes   = 128
	indexMask     = memoryBytes - 1
	indexNMI      = 1 << 7
	aUIP          = 1 << 7
	aDivider      = 7 << 4
	aDividerReset = 6 << 4 // 110 and 111 hold the divider
	aDefault      = 0x26   // 32.768 kHz, 1024 Hz periodic rate
	bSet          = 1 << 7
	bBinary       = 1 << 2
	b24Hours      = 1 << 1
	bDefault      = b24Hours
	cUpdateEnded  = 1 << 4
	dValid        = 1 << 7 // the battery is good
)

// uipTime is the notice that UIP gives before the time changes (data sheet: tBUC).
const uipTime = 244 * time.Microsecond

// Device is the clock. All methods may be called from any goroutine.
type Device struct {
	now func() time.Time

	mu      sync.Mutex
	index   uint8             // with the NMI bit
	memory  [memoryBytes]byte // time registers count only while held
	offset  offset            // guest time minus now(), while not held
	ended   int64             // second in which register C was last read: later ones set UF
	metrics Metrics
}

// Metrics counts what a guest got wrong.
type Metrics struct {
	InvalidFields uint64 `json:"invalid_fields"` // date fields out of range or not BCD
}

var _ devices.Device = (*Device)(nil)

// New returns the clock. now gives the time; its location does not matter.
func New(now func() time.Time) *Device {
	d := &Device{now: now}
	d.memory[regA], d.memory[regB] = aDefault, bDefault
	d.ended = d.guestNow().Unix()
	return d
}

// Metrics returns a copy of the counters.
func (d *Device) Metrics() Metrics {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.metrics
}

// Read implements devices.Device. The index port is for writing and reads ones.
func (d *Device) Read(off uint64, p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range p {
		p[i] = 0xff
		if off+uint64(i) == 1 {
			p[i] = d.readReg(d.index & indexMask)
		}
	}
}

// Write implements devices.Device.
func (d *Device) Write(off uint64, p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, v := range p {
		if off+uint64(i) == 0 {
			d.index = v
		} else {
			d.writeReg(d.index&indexMask, v)
		}
	}
}

// Reset is the machine's reset. The battery keeps time, modes and memory; only the
// interrupt enables and the index go (data sheet: RESET pin).
func (d *Device) Reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.index = 0
	d.memory[regB] &= bSet | bBinary | b24Hours | 1
}

// held reports whether the time stands still; callers hold mu.
func (d *Device) held() bool {
	return d.memory[regB]&bSet != 0 || d.dividerHeld()
}

func (d *Device) dividerHeld() bool {
	return d.memory[regA]&aDividerReset == aDividerReset
}

func (d *Device) guestNow() time.Time { return d.offset.add(d.now()) }

func (d *Device) readReg(reg uint8) uint8 {
	switch {
	case isTime(reg) && !d.held():
		var m [memoryBytes]byte
		d.encode(&m, d.guestNow())
		return m[reg]
	case reg == regA:
		return d.memory[regA] | d.uip()
	case reg == regC:
		return d.flags()
	case reg == regD:
		return dValid
	}
	return d.memory[reg]
}

// uip is the update-in-progress bit.
func (d *Device) uip() uint8 {
	if d.held() || d.guestNow().Nanosecond() < int(time.Second-uipTime) {
		return 0
	}
	return aUIP
}

// flags is register C; reading it clears it.
func (d *Device) flags() (c uint8) {
	if d.held() {
		return 0
	}
	if second := d.guestNow().Unix(); second != d.ended {
		d.ended = second
		c = cUpdateEnded
	}
	return c
}

func (d *Device) writeReg(reg, v uint8) {
	switch {
	case isTime(reg):
		d.writeTime(reg, v)
	case reg == regA:
		d.control(func() { d.memory[regA] = v &^ aUIP })
	case reg == regB:
		d.control(func() { d.memory[regB] = v })
	case reg == regC, reg == regD:
		// For reading only.
	default:
		d.memory[reg] = v
	}
}

// writeTime sets one field of the date, at once when the clock runs.
func (d *Device) writeTime(reg, v uint8) {
	if d.held() {
		d.memory[reg] = v
		return
	}
	t := d.guestNow()
	d.hold(t)
	d.memory[reg] = v
	d.release(time.Duration(t.Nanosecond()))
}

// control changes register A or B and stops or starts the clock accordingly.
func (d *Device) control(change func()) {
	wasHeld, dividerWas := d.held(), d.dividerHeld()
	t := d.guestNow()
	if !wasHeld {
		d.hold(t) // in the modes before the change
	}
	change()
	if !wasHeld || d.held() {
		return
	}
	// SET stops the updates, not the divider: the fraction of the second goes on.
	fraction := time.Duration(t.Nanosecond())
	if dividerWas {
		// Data sheet: the first update comes half a second after the divider starts.
		fraction = time.Second / 2
	}
	d.release(fraction)
}

// hold puts the time into the registers, where it stands still.
func (d *Device) hold(t time.Time) { d.encode(&d.memory, t) }

// release makes the registers the time again, fraction into the second.
func (d *Device) release(fraction time.Duration) {
	t := d.decode().Add(fraction)
	d.offset = offsetOf(t, d.now())
	d.ended = t.Unix()
}
