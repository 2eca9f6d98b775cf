package serial

// cause returns the highest pending interrupt as IIR shows it (data sheet table 5),
// without the FIFO bits; callers hold mu.
func (d *Device) cause() uint8 {
	switch {
	case d.ier&ierRLS != 0 && d.overrun:
		return iirRLS
	case d.ier&ierRDA != 0 && len(d.rx) >= d.trigger():
		return iirRDA
	case d.ier&ierRDA != 0 && len(d.rx) > 0:
		return iirTimeout
	case d.ier&ierTHRE != 0 && d.threPending:
		return iirTHRE
	case d.ier&ierModem != 0 && d.msr&msrDeltas != 0:
		return iirModem
	}
	return iirNone
}

func (d *Device) readIIR() uint8 {
	v := d.cause()
	if v == iirTHRE {
		// Only when it is shown: a higher cause must not swallow it.
		d.threPending = false
		d.updateLine()
	}
	if d.fcr&fcrEnable != 0 {
		v |= iirFIFO
	}
	return v
}

// updateLine makes the line show whether a cause is pending; callers hold mu, so
// that two threads cannot set levels in the wrong order.
func (d *Device) updateLine() {
	if level := d.cause() != iirNone; level != d.level {
		d.level = level
		d.line.Set(level)
	}
}

// trigger is the fill of the receive FIFO that interrupts as "data available".
func (d *Device) trigger() int {
	if d.fcr&fcrEnable == 0 {
		return 1
	}
	return triggerLevels[d.fcr>>6]
}
