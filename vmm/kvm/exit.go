package kvm

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// ExitReason is why KVM_RUN returned (KVM_EXIT_*).
type ExitReason uint32

// Exits of x86.
const (
	ExitUnknown       ExitReason = 0
	ExitException     ExitReason = 1
	ExitIO            ExitReason = 2
	ExitHypercall     ExitReason = 3
	ExitDebug         ExitReason = 4
	ExitHLT           ExitReason = 5
	ExitMMIO          ExitReason = 6
	ExitIRQWindowOpen ExitReason = 7
	ExitShutdown      ExitReason = 8
	ExitFailEntry     ExitReason = 9
	ExitIntr          ExitReason = 10
	ExitSetTPR        ExitReason = 11
	ExitTPRAccess     ExitReason = 12
	ExitNMI           ExitReason = 16
	ExitInternalError ExitReason = 17
	ExitSystemEvent   ExitReason = 24
	ExitIOAPICEOI     ExitReason = 26
	ExitHyperV        ExitReason = 27
	ExitRDMSR         ExitReason = 29
	ExitWRMSR         ExitReason = 30
	ExitDirtyRingFull ExitReason = 31
	ExitAPResetHold   ExitReason = 32
	ExitBusLock       ExitReason = 33
	ExitXen           ExitReason = 34
	ExitNotify        ExitReason = 37
	ExitMemoryFault   ExitReason = 39
)

var exitNames = map[ExitReason]string{
	ExitUnknown: "UNKNOWN", ExitException: "EXCEPTION", ExitIO: "IO", ExitHypercall: "HYPERCALL",
	ExitDebug: "DEBUG", ExitHLT: "HLT", ExitMMIO: "MMIO", ExitIRQWindowOpen: "IRQ_WINDOW_OPEN",
	ExitShutdown: "SHUTDOWN", ExitFailEntry: "FAIL_ENTRY", ExitIntr: "INTR", ExitSetTPR: "SET_TPR",
	ExitTPRAccess: "TPR_ACCESS", ExitNMI: "NMI", ExitInternalError: "INTERNAL_ERROR",
	ExitSystemEvent: "SYSTEM_EVENT", ExitIOAPICEOI: "IOAPIC_EOI", ExitHyperV: "HYPERV",
	ExitRDMSR: "X86_RDMSR", ExitWRMSR: "X86_WRMSR", ExitDirtyRingFull: "DIRTY_RING_FULL",
	ExitAPResetHold: "AP_RESET_HOLD", ExitBusLock: "X86_BUS_LOCK", ExitXen: "XEN",
	ExitNotify: "NOTIFY", ExitMemoryFault: "MEMORY_FAULT",
}

func (r ExitReason) String() string {
	if name, ok := exitNames[r]; ok {
		return "KVM_EXIT_" + name
	}
	return fmt.Sprintf("KVM_EXIT_%d", uint32(r))
}

// handsOut reports whether the guest is inside an instruction until user space
// has answered and KVM_RUN is entered again (KVM API, section 5, kvm_run).
func (r ExitReason) handsOut() bool {
	switch r {
	case ExitIO, ExitMMIO, ExitHypercall, ExitRDMSR, ExitWRMSR, ExitXen, ExitHyperV:
		return true
	}
	return false
}

// Kinds of ExitSystemEvent (KVM_SYSTEM_EVENT_*).
const (
	SystemEventShutdown = 1
	SystemEventReset    = 2
	SystemEventCrash    = 3
)

// Kinds of ExitInternalError (KVM_INTERNAL_ERROR_*).
const (
	InternalEmulation      = 1
	InternalSimultaneous   = 2
	InternalDelivery       = 3
	InternalUnexpectedExit = 4
)

// IOExit is one port instruction: Count elements of Size bytes, more than one for
// a string instruction.
type IOExit struct {
	Port  uint16
	Size  int
	Count int
	Write bool
	// Data is Size*Count bytes, from the guest if Write, else to be filled for it.
	Data []byte
}

// MMIOExit is one access to an address without memory.
type MMIOExit struct {
	Addr  uint64
	Write bool
	// Data is 1 to 8 bytes, from the guest if Write, else to be filled for it.
	Data []byte
}

// Exit is why the guest stopped and what it wants. Only the fields of its Reason
// mean something.
type Exit struct {
	Reason      ExitReason
	IO          IOExit
	MMIO        MMIOExit
	SystemEvent uint32 // SystemEvent*
	// HardwareReason is the CPU's own code (ExitUnknown, ExitFailEntry).
	HardwareReason uint64
	// InternalSuberror and InternalData tell what an ExitInternalError is about.
	InternalSuberror uint32
	InternalData     []uint64
}

// Instruction returns the bytes of the guest instruction that KVM could not
// emulate (up to 15, decoding may need fewer), or nil if KVM did not tell.
func (e *Exit) Instruction() []byte {
	const hasBytes = 1 // KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES
	if e.Reason != ExitInternalError || e.InternalSuberror != InternalEmulation ||
		len(e.InternalData) < 3 || e.InternalData[0]&hasBytes == 0 {
		return nil
	}
	raw := make([]byte, 0, 16)
	raw = binary.LittleEndian.AppendUint64(raw, e.InternalData[1])
	raw = binary.LittleEndian.AppendUint64(raw, e.InternalData[2])
	n := min(int(raw[0]), len(raw)-1) // the first byte counts the others
	return raw[1 : 1+n]
}

// String describes the exit in one line.
func (e *Exit) String() string {
	s := e.Reason.String()
	switch e.Reason {
	case ExitIO:
		return fmt.Sprintf("%s %s port %#x, %d x %d bytes", s, direction(e.IO.Write), e.IO.Port, e.IO.Count, e.IO.Size)
	case ExitMMIO:
		return fmt.Sprintf("%s %s %#x, %d bytes", s, direction(e.MMIO.Write), e.MMIO.Addr, len(e.MMIO.Data))
	case ExitSystemEvent:
		return fmt.Sprintf("%s %d", s, e.SystemEvent)
	case ExitUnknown, ExitFailEntry:
		return fmt.Sprintf("%s, hardware reason %#x", s, e.HardwareReason)
	case ExitInternalError:
		return s + ", " + e.internalError()
	}
	return s
}

func direction(write bool) string {
	if write {
		return "write"
	}
	return "read"
}

func (e *Exit) internalError() string {
	var b strings.Builder
	switch e.InternalSuberror {
	case InternalEmulation:
		b.WriteString("emulation failed")
	case InternalSimultaneous:
		b.WriteString("simultaneous exceptions")
	case InternalDelivery:
		b.WriteString("exit while an event was delivered")
	case InternalUnexpectedExit:
		b.WriteString("unexpected exit of the CPU")
	default:
		fmt.Fprintf(&b, "suberror %d", e.InternalSuberror)
	}
	if insn := e.Instruction(); insn != nil {
		fmt.Fprintf(&b, ", instruction bytes % x", insn)
	} else if len(e.InternalData) > 0 {
		fmt.Fprintf(&b, ", data %#x", e.InternalData)
	}
	return b.String()
}
