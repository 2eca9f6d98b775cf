package vmm

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/vmm/kvm"
	"github.com/fineline-vmm/fineline/vmm/vmmtest"
)

// countBoots counts in the clock's memory, which survives a reset, prints the count,
// resets twice and then powers off.
var countBoots = []byte{
	0xb0, 0x40, 0xe6, 0x70, // mov $0x40, %al; out %al, $0x70
	0xe4, 0x71, 0x88, 0xc4, // in $0x71, %al; mov %al, %ah
	0xfe, 0xc4, 0xb0, 0x40, // inc %ah; mov $0x40, %al
	0xe6, 0x70, 0x88, 0xe0, // out %al, $0x70; mov %ah, %al
	0xe6, 0x71, 0x04, 0x30, // out %al, $0x71; add $'0', %al
	0x66, 0xba, 0xf8, 0x03, 0xee, // mov $0x3f8, %dx; out %al, (%dx)
	0x3c, 0x33, 0x74, 0x08, // cmp $'3', %al; je off
	0xb0, 0x06, 0x66, 0xba, 0xf9, 0x0c, 0xee, 0xf4, // mov $6, %al; mov $0xcf9, %dx; out; hlt
	0x66, 0xba, 0x04, 0x06, // off: mov $0x604, %dx
	0x66, 0xb8, 0x00, 0x20, // mov $0x2000, %ax
	0x66, 0xef, 0xf4, // out %ax, (%dx); hlt
}

func TestResetBootsAgain(t *testing.T) {
	out := &vmmtest.SerialLog{}
	m := newMachine(t, Config{CPUs: 2, SerialOut: out, Boot: BootFiles{Kernel: vmmtest.RawKernel(t, countBoots)}})
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
	if o := awaitEnd(t, m); o.Kind != EndedByPowerOff || out.String() != "123" {
		t.Errorf("outcome %+v, serial output %q", o, out)
	}
}

func TestNoReboot(t *testing.T) {
	out := &vmmtest.SerialLog{}
	m := newMachine(t, Config{NoReboot: true, SerialOut: out, Boot: BootFiles{Kernel: vmmtest.RawKernel(t, countBoots)}})
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
	if o := awaitEnd(t, m); o.Kind != EndedByReset || out.String() != "1" {
		t.Errorf("outcome %+v, serial output %q", o, out)
	}
}

// TestTripleFault loads an empty IDT and divides by zero.
func TestTripleFault(t *testing.T) {
	m := newMachine(t, Config{Boot: BootFiles{Kernel: vmmtest.RawKernel(t, []byte{0x31, 0xc9, 0xf7, 0xf1})}})
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
	if o := awaitEnd(t, m); o.Kind != EndedByError {
		t.Errorf("outcome %+v", o)
	} else {
		t.Log(o.Err)
	}
}

// TestPauseTakesTheGuestsWish pauses at random moments a guest that resets itself:
// a reset that was asked for must not be lost in a saved state.
func TestPauseTakesTheGuestsWish(t *testing.T) {
	for range repeats(50) {
		out := &vmmtest.SerialLog{}
		m := newMachine(t, Config{SerialOut: out, Boot: BootFiles{Kernel: vmmtest.RawKernel(t, countBoots)}})
		if err := m.Resume(); err != nil {
			t.Fatal(err)
		}
		err := m.Pause()
		if err == nil {
			m = cloneMachine(t, m)
			if err := m.Resume(); err != nil {
				t.Fatal(err)
			}
		}
		if o := awaitEnd(t, m); o.Kind != EndedByPowerOff {
			t.Fatalf("outcome %+v, serial output %q", o, out)
		}
	}
}

// stalledConsole takes nothing until it is opened, or a deadline is set.
type stalledConsole struct {
	vmmtest.SerialLog
	entered, open, cut chan struct{}
	once               sync.Once
	// onCut is called when a deadline is set.
	onCut func()
}

func newStalledConsole() *stalledConsole {
	return &stalledConsole{entered: make(chan struct{}), open: make(chan struct{}), cut: make(chan struct{}), onCut: func() {}}
}

func (c *stalledConsole) Write(p []byte) (int, error) {
	c.once.Do(func() { close(c.entered) })
	select {
	case <-c.open:
		return c.SerialLog.Write(p)
	case <-c.cut:
		return 0, os.ErrDeadlineExceeded
	}
}

// cuttable is a stalledConsole with deadlines.
type cuttable struct{ *stalledConsole }

func (c cuttable) SetWriteDeadline(t time.Time) error {
	if !t.IsZero() {
		c.onCut()
		close(c.cut)
	}
	return nil
}

// TestResetWithStalledConsole: a console that takes nothing does not keep a guest from a
// reset, and gets all of its output in the end.
func TestResetWithStalledConsole(t *testing.T) {
	console := newStalledConsole()
	m := newMachine(t, Config{SerialOut: console, Boot: BootFiles{Kernel: vmmtest.RawKernel(t, countBoots)}})
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
	for len(m.board.serial.State().TX) < 3 { // three boots
		select {
		case <-m.Done():
			t.Fatalf("outcome %+v", m.Outcome())
		default:
			runtime.Gosched()
		}
	}
	close(console.open)
	if o := awaitEnd(t, m); o.Kind != EndedByPowerOff || console.String() != "123" {
		t.Errorf("outcome %+v, serial output %q", o, console)
	}
}

// TestPauseStillsConsoleFirst: what can take time comes before the vCPUs stop, so that
// the guest stands still for none of it.
func TestPauseStillsConsoleFirst(t *testing.T) {
	console := cuttable{newStalledConsole()}
	m := newMachine(t, Config{SerialOut: console, Boot: BootFiles{Kernel: "builtin:dirty", Cmdline: "pages=16 rate=0 progress=0"}})
	at := gone
	console.onCut = func() {
		m.cpus[0].mu.Lock()
		defer m.cpus[0].mu.Unlock()
		at = m.cpus[0].is
	}
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
	<-console.entered
	if err := m.Pause(); err != nil {
		t.Fatal(err)
	}
	if at != running {
		t.Errorf("the vCPU was in state %d when the console was stilled", at)
	}
	if len(m.board.serial.State().TX) == 0 {
		t.Error("the output that was not taken is not in the state")
	}
	close(console.open)
}

// TestResetDropsEvents: what a guest asked for before its reset does not reach the next.
func TestResetDropsEvents(t *testing.T) {
	m := newMachine(t, Config{Boot: BootFiles{Kernel: vmmtest.RawKernel(t, countBoots)}})
	m.mu.Lock() // the supervisor sees all or nothing
	m.wish.set(powerOff, 0)
	for _, e := range []event{{next: reset}, {next: reset}, {err: ErrTripleFault}, {next: powerOff}} {
		m.post(e)
	}
	m.mu.Unlock()
	if err := m.Pause(); err != nil {
		t.Fatalf("%v: %+v", err, m.Outcome())
	}
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
	if o := awaitEnd(t, m); o.Kind != EndedByPowerOff || m.board.serial.Metrics().TXBytes != 3 {
		t.Errorf("outcome %+v after %d boots", o, m.board.serial.Metrics().TXBytes)
	}
}

// TestFailedResetStaysParked: no instruction of a guest that was reset by half is executed.
func TestFailedResetStaysParked(t *testing.T) {
	kernel := vmmtest.RawKernel(t, countBoots)
	m := newMachine(t, Config{Boot: BootFiles{Kernel: kernel}})
	if err := os.Remove(kernel); err != nil {
		t.Fatal(err)
	}
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
	if o := awaitEnd(t, m); o.Kind != EndedByError || !errors.Is(o.Err, fs.ErrNotExist) {
		t.Fatalf("outcome %+v", o)
	}
	err := m.cpus[0].do(func(v *kvm.VCPU) error {
		regs, err := v.Regs()
		if err == nil && regs.RIP != 0xfff0 { // the reset vector, Intel SDM vol. 3, 10.1.4
			t.Errorf("RIP %#x", regs.RIP)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
