package vmm

import (
	"bytes"
	"errors"
	"testing"

	"github.com/fineline-vmm/fineline/devices"
	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/vmm/kvm"
)

// scratch is a device that remembers what was written and reads a pattern.
type scratch struct{ written []byte }

func (s *scratch) Read(off uint64, p []byte) {
	for i := range p {
		p[i] = byte(off) + byte(i)
	}
}
func (s *scratch) Write(_ uint64, p []byte) { s.written = append(s.written, p...) }

func testPeripherals(t *testing.T) (*peripherals, *scratch) {
	t.Helper()
	dev := &scratch{}
	p := &peripherals{pio: devices.NewBus("pio"), mmio: devices.NewBus("mmio"), wish: &wish{}, ram: noRAM{}}
	for _, bus := range []*devices.Bus{p.pio, p.mmio} {
		if err := bus.Insert(0x100, 0x10, dev); err != nil {
			t.Fatal(err)
		}
	}
	return p, dev
}

func TestHandleExitEnds(t *testing.T) {
	tests := []struct {
		name string
		exit kvm.Exit
		next next
		err  error
	}{
		{"signal", kvm.Exit{Reason: kvm.ExitIntr}, goOn, nil},
		{"triple fault", kvm.Exit{Reason: kvm.ExitShutdown}, goOn, ErrTripleFault},
		{"entry refused", kvm.Exit{Reason: kvm.ExitFailEntry}, goOn, ErrEntryFailed},
		{"emulation", kvm.Exit{Reason: kvm.ExitInternalError}, goOn, ErrEmulation},
		{"ring full", kvm.Exit{Reason: kvm.ExitDirtyRingFull}, ringFull, nil},
		{"event shutdown", kvm.Exit{Reason: kvm.ExitSystemEvent, SystemEvent: kvm.SystemEventShutdown}, powerOff, nil},
		{"event reset", kvm.Exit{Reason: kvm.ExitSystemEvent, SystemEvent: kvm.SystemEventReset}, reset, nil},
		{"event of the future", kvm.Exit{Reason: kvm.ExitSystemEvent, SystemEvent: 99}, goOn, ErrUnknownExit},
		{"reason of the future", kvm.Exit{Reason: 9999}, goOn, ErrUnknownExit},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, _ := testPeripherals(t)
			n, _, err := handleExit(&tt.exit, p)
			if n != tt.next || !errors.Is(err, tt.err) {
				t.Errorf("got %v, %v; want %v, %v", n, err, tt.next, tt.err)
			}
		})
	}
}

func TestHandleExitPort(t *testing.T) {
	p, dev := testPeripherals(t)
	out := kvm.Exit{Reason: kvm.ExitIO, IO: kvm.IOExit{Port: 0x104, Size: 2, Count: 2, Write: true, Data: []byte{1, 2, 3, 4}}}
	if _, _, err := handleExit(&out, p); err != nil || !bytes.Equal(dev.written, []byte{1, 2, 3, 4}) {
		t.Errorf("out: %v, device got %v", err, dev.written)
	}
	in := kvm.Exit{Reason: kvm.ExitIO, IO: kvm.IOExit{Port: 0x104, Size: 1, Count: 3, Data: make([]byte, 3)}}
	if _, _, err := handleExit(&in, p); err != nil || !bytes.Equal(in.IO.Data, []byte{4, 4, 4}) {
		t.Errorf("string in: %v, guest got %v", err, in.IO.Data)
	}
	nobody := kvm.Exit{Reason: kvm.ExitIO, IO: kvm.IOExit{Port: 0x999, Size: 4, Count: 1, Data: make([]byte, 4)}}
	if _, _, err := handleExit(&nobody, p); err != nil || !bytes.Equal(nobody.IO.Data, []byte{255, 255, 255, 255}) {
		t.Errorf("unclaimed port: %v, guest got %v", err, nobody.IO.Data)
	}
}

func TestHandleExitMMIO(t *testing.T) {
	p, dev := testPeripherals(t)
	store := kvm.Exit{Reason: kvm.ExitMMIO, MMIO: kvm.MMIOExit{Addr: 0x108, Write: true, Data: []byte{9}}}
	if _, _, err := handleExit(&store, p); err != nil || !bytes.Equal(dev.written, []byte{9}) {
		t.Errorf("store: %v, device got %v", err, dev.written)
	}
	load := kvm.Exit{Reason: kvm.ExitMMIO, MMIO: kvm.MMIOExit{Addr: 0x108, Data: make([]byte, 8)}}
	if _, _, err := handleExit(&load, p); err != nil || load.MMIO.Data[7] != 15 {
		t.Errorf("load: %v, guest got %v", err, load.MMIO.Data)
	}
}

// wisher asks for something when it is written to, like the power device.
type wisher struct{ w *wish }

func (wisher) Read(uint64, []byte)        {}
func (d wisher) Write(_ uint64, p []byte) { d.w.set(debugEnd, uint32(p[0])) }

func TestHandleExitWish(t *testing.T) {
	p, _ := testPeripherals(t)
	if err := p.pio.Insert(0xf4, 4, wisher{p.wish}); err != nil {
		t.Fatal(err)
	}
	e := kvm.Exit{Reason: kvm.ExitIO, IO: kvm.IOExit{Port: 0xf4, Size: 1, Count: 1, Write: true, Data: []byte{42}}}
	if n, code, err := handleExit(&e, p); n != debugEnd || code != 42 || err != nil {
		t.Errorf("got %v %d %v", n, code, err)
	}
	e.IO.Port = 0x104
	if n, code, _ := handleExit(&e, p); n != debugEnd || code != 42 {
		t.Errorf("another vCPU took the wish away: %v %d", n, code)
	}
	p.wish.set(reset, 0)
	if n, _ := p.wish.get(); n != debugEnd {
		t.Errorf("a second wish took the place of the first: %v", n)
	}
	p.wish.clear()
	if n, _, _ := handleExit(&e, p); n != goOn {
		t.Errorf("after a reset: %v", n)
	}
}

// noRAM is a machine whose RAM never exits.
type noRAM struct{}

func (noRAM) Access(int, memory.GPA, []byte, bool) bool { return false }
func (noRAM) Blind([]memory.GPA) (bool, error)          { return false, nil }
func (noRAM) BlindAll() (bool, error)                   { return false, nil }
