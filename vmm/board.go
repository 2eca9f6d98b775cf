package vmm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/fineline-vmm/fineline/coherence/track"
	"github.com/fineline-vmm/fineline/devices"
	"github.com/fineline-vmm/fineline/devices/debugexit"
	"github.com/fineline-vmm/fineline/devices/fpga"
	"github.com/fineline-vmm/fineline/devices/pci"
	"github.com/fineline-vmm/fineline/devices/power"
	"github.com/fineline-vmm/fineline/devices/rtc"
	"github.com/fineline-vmm/fineline/devices/serial"
	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/vmm/kvm"
)

// pauseTimeout bounds how long a pause waits for a write to the console that can't be
// cut short. Where it can (sockets, pipes, terminals), a pause waits for nothing.
const pauseTimeout = 200 * time.Millisecond

// fpgaPauseTimeout bounds how long a pause waits for a command of the FPGA: one that begins to track a large
// guest reads all of its memory.
const fpgaPauseTimeout = 30 * time.Second

// fpgaSlot is where guests find the device on bus 0.
const fpgaSlot = 4

// board is our devices and the two buses that lead to them.
type board struct {
	pio, mmio *devices.Bus

	serial    *serial.Device
	rtc       *rtc.Device
	power     *power.Device
	i8042     *power.I8042
	debugExit *debugexit.Device
	pci       *pci.Root
	fpga      *fpga.Device
}

// deviceStates is the saved form of a board and the one list of its devices: one field a
// device. A test compares it with board.
type deviceStates struct {
	Serial    serial.State     `json:"serial"`
	RTC       rtc.State        `json:"rtc"`
	Power     power.State      `json:"power"`
	I8042     power.I8042State `json:"i8042"`
	DebugExit debugexit.State  `json:"debugexit"`
	PCI       pci.State        `json:"pci"`
	FPGA      fpga.State       `json:"fpga"`
}

// deviceNames is what a destination compares before it accepts a machine: the names of
// deviceStates.
func deviceNames() []string {
	var names []string
	for _, f := range reflect.VisibleFields(reflect.TypeFor[deviceStates]()) {
		names = append(names, f.Tag.Get("json"))
	}
	return names
}

// irqLine is a pin of the in-kernel interrupt controllers.
type irqLine struct {
	vm  *kvm.VM
	gsi uint32
}

// Set drives the pin. KVM refuses only a pin that does not exist, our own bug.
func (l irqLine) Set(high bool) {
	if err := l.vm.SetIRQLine(l.gsi, high); err != nil {
		panic(fmt.Sprintf("vmm: interrupt line %d: %v", l.gsi, err))
	}
}

// newBoard makes a board that is paused.
func newBoard(vm *kvm.VM, mem *memory.Guest, lines *track.Engine, serialOut io.Writer, w *wish) (*board, error) {
	b := &board{pio: devices.NewBus("port I/O"), mmio: devices.NewBus("MMIO")}
	request := func(e power.Event) {
		if e == power.Poweroff {
			w.set(powerOff, 0)
		} else {
			w.set(reset, 0)
		}
	}
	b.serial = serial.New(irqLine{vm, irqCOM1}, serialOut)
	b.rtc = rtc.New(time.Now)
	b.power = power.New(request, irqLine{vm, irqSCI}, nil)
	b.i8042 = power.NewI8042(request)
	b.debugExit = debugexit.New(func(status uint32) { w.set(debugEnd, status) })
	b.pci = pci.NewRoot(b.mmio, b.pio)
	var err error
	b.fpga, err = fpga.New(mem, lines, fpga.Options{
		// KVM refuses a message that leads nowhere: the guest wrote it, and misses it.
		Signal: func(addr uint64, data uint32) { _ = vm.SignalMSI(addr, data) },
		Log:    func(err error) { logrus.Warnf("the FPGA device: %v", err) },
	})
	if err != nil {
		return nil, err
	}
	return b, errors.Join(b.wire(), b.fpga.Pause(context.Background()))
}

// wire puts the devices at their addresses.
func (b *board) wire() error {
	return errors.Join(
		b.pio.Insert(serial.Port, serial.SizeBytes, b.serial),
		b.pio.Insert(rtc.Port, rtc.SizeBytes, b.rtc),
		b.pio.Insert(power.Base, power.SizeBytes, b.power),
		b.pio.Insert(power.KeyboardDataPort, power.KeyboardPortBytes, b.i8042.Data()),
		b.pio.Insert(power.KeyboardCommandPort, power.KeyboardPortBytes, b.i8042.Command()),
		b.pio.Insert(debugexit.Port, debugexit.SizeBytes, b.debugExit),
		b.pio.Insert(pci.AddressPort, pci.PortsBytes, b.pci.Ports(b.power.ResetControl())),
		b.mmio.Insert(ecamBase, ecamBytes, b.pci.ECAM()),
		b.pci.Add(fpgaSlot, b.fpga),
	)
}

// pause holds still what works on its own. Output that the console has not taken is part
// of the saved state. After an error the board goes on as before.
func (b *board) pause() error {
	if err := b.pauseFPGA(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), pauseTimeout)
	defer cancel()
	if err := b.serial.PauseContext(ctx); err != nil {
		b.fpga.Resume()
		return fmt.Errorf("the console does not take the guest's serial output: %w", err)
	}
	return nil
}

// pauseFPGA waits for a command that runs, while the guest still runs, too.
func (b *board) pauseFPGA() error {
	ctx, cancel := context.WithTimeout(context.Background(), fpgaPauseTimeout)
	defer cancel()
	return b.fpga.Pause(ctx)
}

func (b *board) resume() {
	b.serial.Resume()
	b.fpga.Resume()
}

func (b *board) close() {
	b.serial.Close()
	if b.fpga != nil {
		b.fpga.Close()
	}
}

// reset is the board's reset line.
func (b *board) reset() {
	b.serial.Reset()
	b.rtc.Reset()
	b.power.Reset()
	b.i8042.Reset()
	b.pci.Reset() // debugExit has no state
	b.fpga.Reset()
}

// state has no field names on purpose: a device of deviceStates that is left out does not compile.
// The machine is paused.
func (b *board) state() (deviceStates, error) {
	f, err := b.fpga.State()
	return deviceStates{
		b.serial.State(),
		b.rtc.State(),
		b.power.State(),
		b.i8042.State(),
		b.debugExit.State(),
		b.pci.State(),
		f,
	}, err
}

func (b *board) restore(s deviceStates) error {
	return errors.Join(
		b.serial.Restore(s.Serial),
		b.rtc.Restore(s.RTC),
		b.power.Restore(s.Power),
		b.i8042.Restore(s.I8042),
		b.debugExit.Restore(s.DebugExit),
		b.pci.Restore(s.PCI),
		b.fpga.Restore(s.FPGA),
	)
}
