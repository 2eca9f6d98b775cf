package serial

import "testing"

func TestPowerOn(t *testing.T) {
	p := newPort(t)
	for reg, want := range map[uint64]byte{
		regIER: 0, regIIR: iirNone, regLCR: 0, regMCR: 0, regLSR: 0x60, regMSR: 0xb0, regSCR: 0, regData: 0,
	} {
		p.want("register", p.in(reg), want)
	}
}

func TestDivisorLatch(t *testing.T) {
	p := newPort(t)
	p.out(regLCR, 0x83)
	p.out(0, 0x34)
	p.out(1, 0xff)
	p.want("DLL", p.in(0), 0x34)
	p.want("DLM", p.in(1), 0xff)
	p.out(regLCR, 0x03)
	p.want("IER", p.in(regIER), 0)
	p.want("LCR", p.in(regLCR), 0x03)
	p.flush()
	if p.String() != "" {
		t.Errorf("the divisor was sent: %q", p.String())
	}
}

// A wide access reaches the neighbours, lowest first.
func TestWideAccess(t *testing.T) {
	p := newPort(t)
	p.Device.Write(regLCR, []byte{0x03, 0x0b})
	p.want("MCR", p.in(regMCR), 0x0b)
	b := make([]byte, 2)
	p.Read(regLCR, b)
	if b[0] != 0x03 || b[1] != 0x0b {
		t.Errorf("read % x", b)
	}
}

func TestReadOnly(t *testing.T) {
	p := newPort(t)
	p.out(regLSR, 0xff)
	p.out(regMSR, 0xff)
	p.want("LSR", p.in(regLSR), 0x60)
	p.want("MSR", p.in(regMSR), 0xb0)
	p.out(regMCR, 0xe0)
	p.want("MCR", p.in(regMCR), 0)
}

func TestInterruptPriority(t *testing.T) {
	p := newPort(t)
	p.out(regIIR, fcrEnable|0x40) // trigger at 4
	p.out(regMCR, mcrLoop)        // DSR, CTS and DCD fall: a modem interrupt
	for range fifoBytes + 1 {
		p.out(regData, 'x') // the last one overruns
	}
	p.out(regIER, ierMask)
	steps := []struct {
		what string
		iir  byte
		next func()
	}{
		{"line status", iirRLS, func() { p.want("LSR", p.in(regLSR), 0x63) }},
		{"data", iirRDA, func() {
			for range fifoBytes - 3 {
				p.in(regData)
			}
		}},
		{"timeout", iirTimeout, func() {
			for range 3 {
				p.in(regData)
			}
		}},
		{"transmitter, once", iirTHRE, func() {}},
		{"modem", iirModem, func() { p.want("MSR", p.in(regMSR), 0x0b) }},
		{"none", iirNone, func() {}},
	}
	for _, s := range steps {
		if p.irq() != (s.iir != iirNone) {
			t.Errorf("%s: line %v", s.what, p.irq())
		}
		p.want("IIR for "+s.what, p.in(regIIR), s.iir|iirFIFO)
		s.next()
	}
	p.want("overruns", byte(p.Metrics().RXOverruns), 1)
}

func TestTrigger(t *testing.T) {
	tests := []struct {
		name  string
		fcr   byte
		level int
	}{
		{"1", fcrEnable, 1},
		{"4", fcrEnable | 0x40, 4},
		{"8", fcrEnable | 0x80, 8},
		{"14", fcrEnable | 0xc0, 14},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newPort(t)
			p.out(regIIR, tt.fcr)
			p.out(regIER, ierRDA)
			for i := 1; i <= fifoBytes; i++ {
				if p.Feed([]byte{byte(i)}) != 1 {
					t.Fatal("no room")
				}
				want := byte(iirTimeout | iirFIFO)
				if i >= tt.level {
					want = iirRDA | iirFIFO
				}
				p.want("IIR", p.in(regIIR), want)
			}
			for i := 1; i <= fifoBytes; i++ {
				p.want("RBR", p.in(regData), byte(i))
			}
			if p.irq() {
				t.Error("line high with nothing received")
			}
		})
	}
}

func TestFIFOControl(t *testing.T) {
	tests := []struct {
		name     string
		fcr      byte
		ready    byte
		capacity int
	}{
		{"clear bit", fcrEnable | fcrClearRX, 0, fifoBytes},
		{"transmit clear only", fcrEnable | 1<<2, lsrReady, fifoBytes - 1},
		{"off", 0, 0, 1},
		{"clear without enable", fcrClearRX, 0, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newPort(t)
			p.out(regIIR, fcrEnable)
			p.Feed([]byte{'a'})
			p.out(regIIR, tt.fcr)
			p.want("LSR", p.in(regLSR)&lsrReady, tt.ready)
			if n := p.Feed(make([]byte, 100)); n != tt.capacity {
				t.Errorf("room for %d, want %d", n, tt.capacity)
			}
		})
	}
}

func TestLoopback(t *testing.T) {
	p := newPort(t)
	p.out(regMCR, mcrLoop)
	p.out(regData, 'a')
	p.want("LSR", p.in(regLSR), 0x61)
	p.out(regData, 'b') // without FIFO the new byte wins
	p.want("LSR", p.in(regLSR), 0x63)
	p.want("LSR is cleared by reading", p.in(regLSR), 0x61)
	p.want("RBR", p.in(regData), 'b')
	if p.Feed([]byte{'x'}) != 0 {
		t.Error("the host was heard in loopback")
	}
	p.out(regIIR, fcrEnable)
	for i := range byte(fifoBytes + 2) {
		p.out(regData, i) // with FIFO the new ones are lost
	}
	for i := range byte(fifoBytes) {
		p.want("RBR", p.in(regData), i)
	}
	p.want("LSR", p.in(regLSR), 0x62)
	p.flush()
	if p.String() != "" {
		t.Errorf("loopback was sent: %q", p.String())
	}
}

func TestModemStatus(t *testing.T) {
	p := newPort(t)
	tests := []struct{ mcr, msr byte }{
		{mcrLoop | mcrRTS | mcrDTR | mcrOut2, 0xb0},
		{mcrLoop | mcrRTS | mcrOut1, 0x5a}, // DSR and DCD fell; that RI rose does not count
		{mcrLoop, 0x05},                    // but that it fell does
		{mcrLoop | 0x0f, 0xfb},
		{0, 0xb4},
	}
	for _, tt := range tests {
		p.out(regMCR, tt.mcr)
		p.want("MSR", p.in(regMSR), tt.msr)
		p.want("MSR again", p.in(regMSR), tt.msr&0xf0)
	}
}

func TestReset(t *testing.T) {
	p := newPort(t)
	p.out(regData, 'k')
	p.out(regIIR, fcrEnable)
	p.out(regIER, ierMask)
	p.Feed([]byte("abc"))
	p.Device.Reset()
	if p.irq() {
		t.Error("line high after reset")
	}
	p.want("LSR", p.in(regLSR), 0x60)
	p.flush()
	if p.String() != "k" {
		t.Errorf("sent %q", p.String())
	}
}

func TestNilEnds(t *testing.T) {
	d := New(nil, nil)
	d.Write(regIER, []byte{ierTHRE})
	d.Write(regData, []byte{'x'})
	d.Close()
	d.Close()
}
