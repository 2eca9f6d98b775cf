package serial

import "testing"

// TestLinuxAutoconfig does what drivers/tty/serial/8250 of Linux 6.1 does to find out
// what it has, in its order, and expects the answers of a 16550A.
func TestLinuxAutoconfig(t *testing.T) {
	p := newPort(t)
	const efr = regIIR // the register's meaning in enhanced UARTs

	// Is anybody there? IER holds four bits.
	p.out(regIER, 0)
	p.want("IER after 0", p.in(regIER), 0)
	p.out(regIER, 0x0f)
	p.want("IER after 0x0f", p.in(regIER), 0x0f)
	p.out(regIER, 0)

	// The loopback test.
	save := p.in(regMCR)
	p.out(regMCR, mcrLoop|mcrOut2|mcrRTS)
	p.want("MSR in loopback", p.in(regMSR)&0xf0, 0x90)
	p.out(regMCR, save)

	// Which type: FIFO bits of IIR.
	p.out(regLCR, 0xbf)
	p.out(efr, 0)
	p.out(regLCR, 0)
	p.out(regIIR, fcrEnable)
	p.want("IIR>>6", p.in(regIIR)>>6, 3)

	// autoconfig_16550a: not a 16650 or 16850: EFR would read zero.
	p.out(regLCR, 0x80)
	if p.in(efr) == 0 {
		t.Error("looks like an EFR with DLAB")
	}
	p.out(regLCR, 0xbf)
	if p.in(efr) == 0 {
		t.Error("looks like an EFR with LCR 0xbf")
	}
	// Not a National SuperIO: register 2 of its bank does not follow MCR.
	p.out(regLCR, 0)
	mcr := p.in(regMCR)
	p.out(regMCR, mcr^mcrLoop)
	p.out(regLCR, 0xe0)
	bank := p.in(2)
	p.out(regLCR, 0)
	p.out(regMCR, mcr)
	if (bank^mcr)&mcrLoop != 0 {
		t.Error("looks like a National SuperIO")
	}
	// Not a TI16750: no 64 byte FIFO in either bank.
	for _, lcr := range []byte{0, 0x80} {
		p.out(regLCR, lcr)
		p.out(regIIR, fcrEnable|0x20)
		p.want("FIFO bits of IIR", p.in(regIIR)&0xe0, 0xc0)
		p.out(regIIR, fcrEnable)
	}
	p.out(regLCR, 0)
	// Not an XScale: UUE is not there.
	p.out(regIER, 0x40)
	p.want("IER after UUE", p.in(regIER)&0x40, 0)

	for _, v := range []byte{0x00, 0xff, 0x5a} {
		p.out(regSCR, v)
		p.want("scratch", p.in(regSCR), v)
	}
}

// TestLinuxStartup is serial8250_do_startup: the two tests that decide whether the
// driver distrusts the THRE interrupt.
func TestLinuxStartup(t *testing.T) {
	p := newPort(t)
	p.out(regIIR, fcrEnable)
	p.out(regIIR, fcrEnable|fcrClearRX|1<<2)
	p.out(regIIR, 0)
	p.want("LSR", p.in(regLSR), lsrTHRE|lsrTEMT)

	// THRE must be raised again by each enabling, else UART_BUG_THRE.
	p.out(regIER, ierTHRE)
	first := p.in(regIIR)
	p.out(regIER, 0)
	p.out(regIER, ierTHRE)
	second := p.in(regIIR)
	p.out(regIER, 0)
	p.want("IIR", first, iirTHRE)
	p.want("IIR again", second, iirTHRE)

	// An idle transmitter interrupts at once when enabled, else UART_BUG_TXEN.
	p.out(regMCR, mcrOut2)
	p.out(regIER, ierTHRE)
	lsr, iir := p.in(regLSR), p.in(regIIR)
	p.out(regIER, 0)
	if lsr&lsrTEMT != 0 && iir&iirNone != 0 {
		t.Error("the driver would use its timer")
	}
	if p.irq() {
		t.Error("line high with interrupts off")
	}
}

// TestLinuxTransmit sends as the driver does: 16 bytes an interrupt, and the line
// is the only thing that makes it go on.
func TestLinuxTransmit(t *testing.T) {
	p := newPort(t)
	p.out(regIIR, fcrEnable|fcrTrigger)
	text := make([]byte, 1000)
	for i := range text {
		text[i] = byte(i)
	}
	left := text
	p.out(regIER, ierTHRE)
	for p.irq() {
		iir := p.in(regIIR)
		if iir&0x0f != iirTHRE || p.in(regLSR)&lsrTHRE == 0 {
			t.Fatalf("IIR %#x", iir)
		}
		n := min(len(left), fifoBytes)
		for _, b := range left[:n] {
			p.out(regData, b)
		}
		if left = left[n:]; len(left) == 0 {
			p.out(regIER, 0)
		}
	}
	p.flush()
	if p.String() != string(text) {
		t.Errorf("%d bytes arrived, of %d", len(p.String()), len(text))
	}
}
