package power

import (
	"fmt"
	"sync"

	"github.com/fineline-vmm/fineline/devices"
)

// Ports of the keyboard controller, one byte each.
const (
	KeyboardDataPort    = 0x60
	KeyboardCommandPort = 0x64
	KeyboardPortBytes   = 1
)

// Status bits of port 0x64. The input buffer is never full: commands end at once.
const (
	kbcOutputFull = 1 << 0
	kbcSystem     = 1 << 2 // self-test passed
	kbcCommand    = 1 << 3 // last write went to 0x64
	kbcUnlocked   = 1 << 4 // keyboard lock open; Linux warns without it
)

// Commands at port 0x64 that are more than ignored.
const (
	cmdReadConfig   = 0x20
	cmdWriteConfig  = 0x60
	cmdTestAux      = 0xa9
	cmdSelfTest     = 0xaa
	cmdTestKeyboard = 0xab
	cmdReadInput    = 0xc0
	cmdReadOutput   = 0xd0
	cmdWriteOutput  = 0xd1
	cmdWriteKbdBuf  = 0xd2
	cmdWriteAuxBuf  = 0xd3
	cmdPulse        = 0xf0 // to 0xff: output lines whose bit is zero are pulsed low
)

const (
	outputReset   = 1 << 0 // low resets the machine
	outputDefault = 0x03   // reset high, A20 open
	configDefault = 0x74   // system flag, both ports disabled, translation
	configMask    = 0x7f
	linesStuck    = 0x01 // port test: clock line stuck low, nobody is connected
	selfTestOK    = 0x55
)

// I8042 is a keyboard controller with nothing connected; guests reset through it.
type I8042 struct {
	request func(Event)

	mu      sync.Mutex
	state   I8042State
	metrics I8042Metrics
}

// I8042Metrics counts what had no effect.
type I8042Metrics struct {
	DataIgnored    uint64 `json:"data_ignored"`    // bytes for the missing keyboard
	UnknownCommand uint64 `json:"unknown_command"` // also those for the missing mouse
}

// I8042State is the saved form of an I8042.
type I8042State struct {
	Config     uint8 `json:"config"`
	Output     uint8 `json:"output"` // the byte that port 0x60 reads
	OutputFull bool  `json:"output_full"`
	LastWasCmd bool  `json:"last_was_cmd"`
	Command    uint8 `json:"command"` // waits for its data byte, 0 = none
}

// NewI8042 returns the controller. request gets Reset on the vCPU's thread.
func NewI8042(request func(Event)) *I8042 {
	k := &I8042{request: request}
	k.Reset()
	return k
}

// Data is the device of one byte at KeyboardDataPort.
func (k *I8042) Data() devices.Device { return kbcData{k} }

// Command is the device of one byte at KeyboardCommandPort.
func (k *I8042) Command() devices.Device { return kbcCommandPort{k} }

// State returns the controller's state.
func (k *I8042) State() I8042State {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state
}

// Restore replaces the state. The error wraps ErrState.
func (k *I8042) Restore(s I8042State) error {
	if s.Config&^configMask != 0 || (s.Command != 0 && !takesData(s.Command)) {
		return fmt.Errorf("%w: keyboard controller config %#x, command %#x", ErrState, s.Config, s.Command)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state = s
	return nil
}

// Reset gives the controller its power-on state.
func (k *I8042) Reset() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.state = I8042State{Config: configDefault}
}

// Metrics returns a copy of the counters.
func (k *I8042) Metrics() I8042Metrics {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.metrics
}

type kbcData struct{ k *I8042 }

func (p kbcData) Read(_ uint64, b []byte) {
	p.k.mu.Lock()
	defer p.k.mu.Unlock()
	for i := range b {
		b[i] = p.k.state.Output // an empty buffer repeats its last byte
	}
	p.k.state.OutputFull = false
}

func (p kbcData) Write(_ uint64, b []byte) {
	for _, v := range b {
		if p.k.data(v) {
			p.k.request(Reset)
		}
	}
}

type kbcCommandPort struct{ k *I8042 }

func (p kbcCommandPort) Read(_ uint64, b []byte) {
	p.k.mu.Lock()
	defer p.k.mu.Unlock()
	status := byte(kbcUnlocked | kbcSystem)
	if p.k.state.LastWasCmd {
		status |= kbcCommand
	}
	if p.k.state.OutputFull {
		status |= kbcOutputFull
	}
	for i := range b {
		b[i] = status
	}
}

func (p kbcCommandPort) Write(_ uint64, b []byte) {
	for _, v := range b {
		if p.k.command(v) {
			p.k.request(Reset)
		}
	}
}

func takesData(cmd uint8) bool {
	switch cmd {
	case cmdWriteConfig, cmdWriteOutput, cmdWriteKbdBuf, cmdWriteAuxBuf:
		return true
	}
	return false
}

// command handles a byte to port 0x64 and reports whether it resets the machine.
func (k *I8042) command(cmd uint8) (reset bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := &k.state
	s.LastWasCmd, s.Command = true, 0
	switch {
	case takesData(cmd):
		s.Command = cmd
	case cmd >= cmdPulse:
		return cmd&outputReset == 0
	case cmd == cmdReadConfig:
		k.answer(s.Config)
	case cmd == cmdSelfTest:
		s.Config = configDefault
		k.answer(selfTestOK)
	case cmd == cmdTestAux, cmd == cmdTestKeyboard:
		k.answer(linesStuck)
	case cmd == cmdReadInput:
		k.answer(0)
	case cmd == cmdReadOutput:
		k.answer(outputDefault)
	case cmd >= 0xa7 && cmd <= 0xa8: // disable, enable the second port
		s.Config = setBit(s.Config, 1<<5, cmd == 0xa7)
	case cmd >= 0xad && cmd <= 0xae: // disable, enable the first port
		s.Config = setBit(s.Config, 1<<4, cmd == 0xad)
	default:
		k.metrics.UnknownCommand++
	}
	return false
}

// data handles a byte to port 0x60 and reports whether it resets the machine.
func (k *I8042) data(v uint8) (reset bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := &k.state
	cmd := s.Command
	s.LastWasCmd, s.Command = false, 0
	switch cmd {
	case cmdWriteConfig:
		s.Config = v & configMask
	case cmdWriteOutput:
		return v&outputReset == 0
	case cmdWriteKbdBuf, cmdWriteAuxBuf:
		// The mouse's status bit stays clear, which tells a driver at once that
		// there is no second port.
		k.answer(v)
	default:
		k.metrics.DataIgnored++
	}
	return false
}

func (k *I8042) answer(v uint8) {
	k.state.Output, k.state.OutputFull = v, true
}

func setBit(v, bit uint8, on bool) uint8 {
	if on {
		return v | bit
	}
	return v &^ bit
}
