package serial

// Register offsets. 0 and 1 are the divisor latch while LCR has lcrDLAB.
const (
	regData = iota // RBR on read, THR on write
	regIER
	regIIR // FCR on write
	regLCR
	regMCR
	regLSR
	regMSR
	regSCR
)

// Register bits, by the names of the data sheet.
const (
	ierRDA   = 1 << 0
	ierTHRE  = 1 << 1
	ierRLS   = 1 << 2
	ierModem = 1 << 3
	ierMask  = 0x0f

	iirNone    = 0x01
	iirModem   = 0x00
	iirTHRE    = 0x02
	iirRDA     = 0x04
	iirRLS     = 0x06
	iirTimeout = 0x0c
	iirFIFO    = 0xc0

	fcrEnable  = 1 << 0
	fcrClearRX = 1 << 1
	fcrTrigger = 0xc0
	fcrKept    = fcrEnable | 1<<3 | fcrTrigger // what has a meaning after the write; bit 3 is DMA mode

	lcrDLAB = 1 << 7

	mcrDTR  = 1 << 0
	mcrRTS  = 1 << 1
	mcrOut1 = 1 << 2
	mcrOut2 = 1 << 3
	mcrLoop = 1 << 4
	mcrMask = 0x1f

	lsrReady   = 1 << 0
	lsrOverrun = 1 << 1
	lsrTHRE    = 1 << 5
	lsrTEMT    = 1 << 6

	msrDeltas = 0x0f
	msrTERI   = 1 << 2
	msrCTS    = 1 << 4
	msrDSR    = 1 << 5
	msrRI     = 1 << 6
	msrDCD    = 1 << 7
	// msrIdle is a peer that is there and ready.
	msrIdle = msrCTS | msrDSR | msrDCD
)

const fifoBytes = 16

// triggerLevels is indexed by the top two bits of FCR.
var triggerLevels = [4]int{1, 4, 8, 14}

// readReg has the side effects of a guest's read; callers hold mu.
func (d *Device) readReg(reg uint64) (v uint8) {
	switch reg {
	case regData:
		if d.lcr&lcrDLAB != 0 {
			return d.dll
		}
		return d.receive()
	case regIER:
		if d.lcr&lcrDLAB != 0 {
			return d.dlm
		}
		return d.ier
	case regIIR:
		return d.readIIR()
	case regLCR:
		return d.lcr
	case regMCR:
		return d.mcr
	case regLSR:
		v = d.lineStatus()
		d.overrun = false
		d.updateLine()
	case regMSR:
		v = d.msr
		d.msr &^= msrDeltas
		d.updateLine()
	case regSCR:
		return d.scr
	}
	return v
}

// writeReg has the side effects of a guest's write; callers hold mu.
func (d *Device) writeReg(reg uint64, v uint8) {
	switch reg {
	case regData:
		if d.lcr&lcrDLAB != 0 {
			d.dll = v
			return
		}
		d.transmit(v)
	case regIER:
		if d.lcr&lcrDLAB != 0 {
			d.dlm = v
			return
		}
		d.writeIER(v & ierMask)
	case regIIR:
		d.writeFCR(v)
	case regLCR:
		d.lcr = v
	case regMCR:
		d.writeMCR(v & mcrMask)
	case regSCR:
		d.scr = v
	}
	// LSR and MSR are for reading; the data sheet reserves writes to factory tests.
}

func (d *Device) lineStatus() (v uint8) {
	if len(d.rx) > 0 {
		v |= lsrReady
	}
	if d.overrun {
		v |= lsrOverrun
	}
	if d.thre() {
		v |= lsrTHRE | lsrTEMT
	}
	return v
}

func (d *Device) writeIER(v uint8) {
	// A driver that enables THRE with the transmitter empty gets the interrupt,
	// each time: Linux starts transmission so, and tests for it at startup.
	if v&^d.ier&ierTHRE != 0 && d.thre() {
		d.threPending = true
	}
	d.ier = v
	d.updateLine()
}

func (d *Device) writeFCR(v uint8) {
	if v&fcrEnable == 0 {
		v = 0 // the other bits count only together with the enable bit
	}
	if (v^d.fcr)&fcrEnable != 0 || v&fcrClearRX != 0 {
		d.rx = d.rx[:0]
		d.space.fire()
	}
	d.fcr = v & fcrKept
	d.updateLine()
}

func (d *Device) writeMCR(v uint8) {
	left := d.mcr&mcrLoop != 0 && v&mcrLoop == 0
	d.mcr = v
	d.setModem(modemInputs(v))
	if left {
		d.space.fire() // Feed is refused in loopback
	}
	d.updateLine()
}

// modemInputs is the upper half of MSR: the peer's lines, or in loopback our own outputs.
func modemInputs(mcr uint8) (in uint8) {
	if mcr&mcrLoop == 0 {
		return msrIdle
	}
	for _, w := range [...]struct{ out, in uint8 }{
		{mcrRTS, msrCTS}, {mcrDTR, msrDSR}, {mcrOut1, msrRI}, {mcrOut2, msrDCD},
	} {
		if mcr&w.out != 0 {
			in |= w.in
		}
	}
	return in
}

// setModem changes the modem lines and notes which of them changed.
func (d *Device) setModem(in uint8) {
	changed := (d.msr ^ in) >> 4
	if in&msrRI != 0 {
		changed &^= msrTERI // only the trailing edge of RI counts
	}
	d.msr = in | d.msr&msrDeltas | changed
}
