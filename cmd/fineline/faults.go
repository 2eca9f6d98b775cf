package main

import (
	"time"

	"github.com/sirupsen/logrus"

	"github.com/fineline-vmm/fineline/vmm"
)

// faultLogInterval is the limit of the rate: a guest can raise the counters a million times a second.
const faultLogInterval = 10 * time.Second

// logFaults says what the guest does in vain, until the machine is done. Only with --verbose: every
// Linux looks for devices that are not there.
func logFaults(m *vmm.Machine) {
	tick := time.NewTicker(faultLogInterval)
	defer tick.Stop()
	var said vmm.Metrics
	for done := false; !done; {
		select {
		case <-m.Done():
			done = true
		case <-tick.C:
		}
		if now := m.Metrics().Faults(); now != said {
			said = now
			logrus.WithFields(faultFields(now)).Debug("the guest asked devices in vain")
		}
	}
}

func faultFields(m vmm.Metrics) logrus.Fields {
	return logrus.Fields{
		"port_io": m.PortIO, "mmio": m.MMIO, "serial": m.Serial, "rtc": m.RTC, "power": m.Power, "i8042": m.I8042,
	}
}
