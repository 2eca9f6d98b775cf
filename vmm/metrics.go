package vmm

import (
	"github.com/fineline-vmm/fineline/coherence/track"
	"github.com/fineline-vmm/fineline/devices"
	"github.com/fineline-vmm/fineline/devices/fpga"
	"github.com/fineline-vmm/fineline/devices/power"
	"github.com/fineline-vmm/fineline/devices/rtc"
	"github.com/fineline-vmm/fineline/devices/serial"
)

// Metrics counts what the devices moved and what the guest asked of them in vain, since this
// process built the machine: a migration starts them anew. Lines is how it is now. Comparable.
type Metrics struct {
	PortIO devices.BusMetrics `json:"port_io"`
	MMIO   devices.BusMetrics `json:"mmio"`
	Serial serial.Metrics     `json:"serial"`
	RTC    rtc.Metrics        `json:"rtc"`
	Power  power.Metrics      `json:"power"`
	I8042  power.I8042Metrics `json:"i8042"`
	FPGA   fpga.Metrics       `json:"fpga"`
	Lines  track.Metrics      `json:"lines"`
}

// Metrics reads the counters; the machine may run.
func (m *Machine) Metrics() Metrics {
	b := m.board
	return Metrics{
		PortIO: b.pio.Metrics(),
		MMIO:   b.mmio.Metrics(),
		Serial: b.serial.Metrics(),
		RTC:    b.rtc.Metrics(),
		Power:  b.power.Metrics(),
		I8042:  b.i8042.Metrics(),
		FPGA:   b.fpga.Metrics(),
		Lines:  m.lines.Metrics(),
	}
}

// Faults is m without the traffic that is as it should be: it changes only when a guest does
// what has no effect, or a console fails.
func (m Metrics) Faults() Metrics {
	m.Serial.TXBytes, m.Serial.RXBytes = 0, 0
	m.FPGA = m.FPGA.Faults()
	m.Lines = track.Metrics{}
	return m
}
