package serial

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/fineline-vmm/fineline/devices"
)

// COM1 of a PC.
const (
	Port      = 0x3f8
	SizeBytes = 8
	IRQ       = 4
)

// Errors of the host's side.
var (
	ErrClosed = errors.New("serial port is closed")
	// ErrUnread: the run is over and nobody took what was left of the output.
	ErrUnread = errors.New("nobody reads it")
	ErrPaused = errors.New("serial port is paused")
)

// Device is one UART. All methods may be called from any goroutine.
type Device struct {
	line    devices.Line
	out     io.Writer
	drained chan struct{} // closed when the drainer has ended

	mu sync.Mutex

	// Registers. Invariant: reserved bits are zero; level is the line's.
	ier, fcr, lcr, mcr, msr, scr, dll, dlm uint8
	overrun                                bool
	threPending                            bool
	level                                  bool

	rx []byte // receive FIFO, cap fifoBytes
	tx queue  // bytes the host has not taken; during a write they are still here

	writing   bool // the drainer is in out.Write, without mu
	abandoned bool // what is in tx is counted as lost already
	deadline  bool // a write deadline is set on out and must be taken back
	paused    bool
	closed    bool

	work  event // for the drainer: bytes, resume or close
	space event // for Feed: room, resume or close
	idle  event // for Flush and Pause: a write ended, or close

	metrics Metrics
	txErr   error // the first failure of out
}

// Metrics counts since New; a guest or a broken writer can raise each.
type Metrics struct {
	TXBytes    uint64 `json:"tx_bytes"`    // taken by the host
	TXDropped  uint64 `json:"tx_dropped"`  // written by the guest into a full queue
	TXLost     uint64 `json:"tx_lost"`     // the host's writer failed on them, or nobody took them before the end
	TXErrors   uint64 `json:"tx_errors"`   // failures of the host's writer
	RXBytes    uint64 `json:"rx_bytes"`    // taken from the host
	RXOverruns uint64 `json:"rx_overruns"` // bytes lost in loopback
}

var _ devices.Device = (*Device)(nil)

// errNotPolled: the queue was full, and the guest did not look at THRE before it wrote.
var errNotPolled = errors.New("the guest wrote on while the transmitter was full")

// LostOutput is nil, or says how much output did not reach the host's writer, and why at first.
func (d *Device) LostOutput() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	lost, cause := d.metrics.TXLost+d.metrics.TXDropped, d.txErr
	switch {
	case d.metrics.TXErrors == 0 && lost == 0: // what was abandoned has gone out after all
		return nil
	case cause == nil:
		cause = errNotPolled
	}
	return fmt.Errorf("%d bytes of serial output are lost: %w", lost, cause)
}

// New returns a running UART whose output goes to out (nil discards it), written by
// a goroutine that lives until Close. A failed write loses its bytes and is counted;
// the guest runs on. If out has SetWriteDeadline, the device uses it.
func New(line devices.Line, out io.Writer) *Device {
	if out == nil {
		out = io.Discard
	}
	if line == nil {
		line = devices.NoLine
	}
	d := &Device{line: line, out: out, drained: make(chan struct{}), rx: make([]byte, 0, fifoBytes)}
	d.powerOn()
	go d.drain()
	return d
}

// powerOn gives the registers their values after reset (data sheet table 1).
func (d *Device) powerOn() {
	d.ier, d.fcr, d.lcr, d.mcr, d.scr = 0, 0, 0, 0, 0
	d.dll, d.dlm = 12, 0 // 9600 baud, for guests that print the rate they find
	d.msr = msrIdle
	d.overrun, d.threPending = false, false
	d.rx = d.rx[:0]
}

// Read implements devices.Device.
func (d *Device) Read(off uint64, p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range p {
		p[i] = d.readReg(off + uint64(i))
	}
}

// Write implements devices.Device.
func (d *Device) Write(off uint64, p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, v := range p {
		d.writeReg(off+uint64(i), v)
	}
}

// Reset is the machine's reset: registers and received bytes go, queued output stays.
func (d *Device) Reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.powerOn()
	d.updateLine()
	d.space.fire()
}

// Metrics returns a copy of the counters.
func (d *Device) Metrics() Metrics {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.metrics
}

// Close ends the drainer and wakes everyone who waits. Unsent output is lost: Flush
// first. It waits for a write that runs only if that can be cut short.
func (d *Device) Close() {
	d.mu.Lock()
	d.closed = true
	d.cutWrite()
	stuck := d.writing && !d.deadline
	d.work.fire()
	d.space.fire()
	d.idle.fire()
	d.mu.Unlock()
	if !stuck {
		<-d.drained
	}
}
