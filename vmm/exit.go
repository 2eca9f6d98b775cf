package vmm

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/fineline-vmm/fineline/devices"
	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/vmm/kvm"
)

// next is what a vCPU does after an exit was handled.
type next int

const (
	goOn     next = iota // enter the guest again
	powerOff             // the guest switched the machine off
	reset                // the guest asked for a reset
	debugEnd             // the guest ended the run through isa-debug-exit
	ringFull             // the vCPU's dirty ring must be harvested first
	leave                // the vCPU is held: park before the guest is entered again
)

// Reasons for which a guest's run ends as a failure.
var (
	ErrTripleFault = errors.New("guest triple fault (an exception it had no handler for)")
	ErrUnknownExit = errors.New("KVM ended the run with an exit that Fineline does not handle")
	ErrEntryFailed = errors.New("the CPU refused to enter the guest")
	ErrEmulation   = errors.New("KVM could not emulate a guest instruction")
)

// wish is what a device asks of the machine. Every vCPU reads it after each access and
// it stays until a reset, so no further guest instruction runs on the vCPU whose access
// caused it, whoever reads it first. The first wish counts.
type wish struct{ value atomic.Uint64 }

func (w *wish) set(n next, code uint32) { w.value.CompareAndSwap(0, uint64(n)<<32|uint64(code)) }

func (w *wish) get() (next, uint32) {
	v := w.value.Load()
	return next(v >> 32), uint32(v)
}

func (w *wish) clear() { w.value.Store(0) }

// peripherals is all that an exit of one vCPU can reach.
type peripherals struct {
	pio, mmio *devices.Bus
	wish      *wish
	cpu       int
	mem       *memory.Guest
	ram       guestRAM
}

// guestRAM does the accesses to RAM that exit because stores or lines are watched there.
type guestRAM interface {
	// Access reports false for what is not RAM.
	Access(cpu int, gpa memory.GPA, data []byte, write bool) bool
	// Blind gives pages back to the guest whose accesses nobody can do; false: none of them exits.
	Blind(pages []memory.GPA) (bool, error)
	BlindAll() (bool, error)
}

// handleExit answers one exit. It is the only place where exits are told apart,
// and takes them as values so that tests need no /dev/kvm. The code belongs to
// debugEnd.
func handleExit(e *kvm.Exit, p *peripherals) (n next, code uint32, err error) {
	switch e.Reason {
	case kvm.ExitIO:
		portAccess(&e.IO, p.pio)
	case kvm.ExitMMIO:
		memoryAccess(&e.MMIO, p)
	case kvm.ExitIntr, kvm.ExitIRQWindowOpen:
		return goOn, 0, nil
	case kvm.ExitDirtyRingFull:
		return ringFull, 0, nil
	case kvm.ExitShutdown:
		return goOn, 0, ErrTripleFault
	case kvm.ExitSystemEvent:
		return systemEvent(e.SystemEvent)
	case kvm.ExitFailEntry:
		return goOn, 0, fmt.Errorf("%w: %s", ErrEntryFailed, e)
	case kvm.ExitInternalError:
		return goOn, 0, fmt.Errorf("%w: %s", ErrEmulation, e)
	default:
		return goOn, 0, fmt.Errorf("%w: %s", ErrUnknownExit, e)
	}
	n, code = p.wish.get()
	return n, code, nil
}

func memoryAccess(mmio *kvm.MMIOExit, p *peripherals) {
	switch {
	case p.ram.Access(p.cpu, memory.GPA(mmio.Addr), mmio.Data, mmio.Write):
	case mmio.Write:
		p.mmio.Write(mmio.Addr, mmio.Data)
	default:
		p.mmio.Read(mmio.Addr, mmio.Data)
	}
}

// portAccess does the elements of a string instruction one by one, in order.
func portAccess(io *kvm.IOExit, bus *devices.Bus) {
	for i := 0; i < io.Count; i++ {
		element := io.Data[i*io.Size : (i+1)*io.Size]
		if io.Write {
			bus.Write(uint64(io.Port), element)
		} else {
			bus.Read(uint64(io.Port), element)
		}
	}
}

// systemEvent follows KVM_SYSTEM_EVENT_* of the KVM API, section 5 (kvm_run).
func systemEvent(kind uint32) (next, uint32, error) {
	switch kind {
	case kvm.SystemEventShutdown:
		return powerOff, 0, nil
	case kvm.SystemEventReset:
		return reset, 0, nil
	default:
		return goOn, 0, fmt.Errorf("%w: system event %d", ErrUnknownExit, kind)
	}
}
