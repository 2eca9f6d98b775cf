package kvm

import (
	"fmt"
	"strings"

	gokvm "github.com/bobuhiro11/gokvm/kvm"
)

// Capabilities newer than gokvm's list, from <linux/kvm.h>.
const (
	capTripleFaultEvent   gokvm.Capability = 218
	capDirtyLogRingAcqRel gokvm.Capability = 223
)

// capability is one line of the list of what this package uses.
type capability struct {
	number   gokvm.Capability
	name     string
	minimum  int // KVM_CHECK_EXTENSION must answer at least this
	required bool
	meaning  string
	remedy   string
}

// Remedies. Every required capability but one is in all kernels since 5.17.
const (
	newerKernel   = "run Linux 5.17 or newer"
	noSuchBuild   = "use a kernel whose KVM is built with it (distribution kernels are)"
	optionalSince = "optional; Linux 6.1 or newer has it"
)

// capabilities is the one list: Open refuses what lacks a required one,
// `fineline doctor` prints it.
var capabilities = []capability{
	{gokvm.CapUserMemory, "KVM_CAP_USER_MEMORY", 1, true, "guest RAM in this process's memory", noSuchBuild},
	{gokvm.CapSyncMMU, "KVM_CAP_SYNC_MMU", 1, true, "unmapping in this process is seen by the guest (memfd, userfaultfd)", noSuchBuild},
	{gokvm.CapNRMemSlots, "KVM_CAP_NR_MEMSLOTS", 64, true, "memory slots for RAM, read-only and device regions", newerKernel},
	{gokvm.CapReadOnlyMEM, "KVM_CAP_READONLY_MEM", 1, true, "read-only slots: every store to one exits", noSuchBuild},
	{gokvm.CapNRVCPUS, "KVM_CAP_NR_VCPUS", 1, true, "recommended number of vCPUs of one VM", noSuchBuild},
	{gokvm.CapMAXVCPUS, "KVM_CAP_MAX_VCPUS", 1, true, "largest number of vCPUs of one VM", noSuchBuild},
	{gokvm.CapIRQChip, "KVM_CAP_IRQCHIP", 1, true, "PIC, IOAPIC and LAPIC in the kernel", noSuchBuild},
	{gokvm.CapIRQRouting, "KVM_CAP_IRQ_ROUTING", 1, true, "routes from interrupt lines to PIC and IOAPIC pins", noSuchBuild},
	{gokvm.CapPIT2, "KVM_CAP_PIT2", 1, true, "the PC's interval timer in the kernel", noSuchBuild},
	{gokvm.CapPITState2, "KVM_CAP_PIT_STATE2", 1, true, "save and restore of the interval timer", noSuchBuild},
	{gokvm.CapSetTSSAddr, "KVM_CAP_SET_TSS_ADDR", 1, true, "a place for KVM's real-mode task segment", noSuchBuild},
	{gokvm.CapSetIdentityMapAddr, "KVM_CAP_SET_IDENTITY_MAP_ADDR", 1, true, "a place for KVM's identity page table", noSuchBuild},
	{gokvm.CapEXTCPUID, "KVM_CAP_EXT_CPUID", 1, true, "CPUID leaves chosen by us", noSuchBuild},
	{gokvm.CapImmediateExit, "KVM_CAP_IMMEDIATE_EXIT", 1, true, "vCPUs can be stopped without losing a wake-up", newerKernel},
	{gokvm.CapSignalMSI, "KVM_CAP_SIGNAL_MSI", 1, true, "message-signalled interrupts of PCI devices", noSuchBuild},
	{gokvm.CapMPState, "KVM_CAP_MP_STATE", 1, true, "save and restore: halted and waiting vCPUs", noSuchBuild},
	{gokvm.CapVCPUEvents, "KVM_CAP_VCPU_EVENTS", 1, true, "save and restore: pending exceptions and interrupts", noSuchBuild},
	{gokvm.CapDebugRegs, "KVM_CAP_DEBUGREGS", 1, true, "save and restore: debug registers", noSuchBuild},
	{gokvm.CapXCRS, "KVM_CAP_XCRS", 1, true, "save and restore: extended control registers", noSuchBuild},
	{gokvm.CapXSave2, "KVM_CAP_XSAVE2", xsaveHeaderBytes, true, "save and restore: floating point and vector registers (bytes)", newerKernel},
	{gokvm.CapSREGS2, "KVM_CAP_SREGS2", 1, true, "save and restore: control registers with PAE pointers", newerKernel},
	{gokvm.CapGetTSCkHz, "KVM_CAP_GET_TSC_KHZ", 1, true, "save and restore: TSC frequency", noSuchBuild},
	{gokvm.CapVCPUAttributes, "KVM_CAP_VCPU_ATTRIBUTES", 1, true, "save and restore: exact TSC offsets, the same on all vCPUs", newerKernel},
	{gokvm.CapAdjustClock, "KVM_CAP_ADJUST_CLOCK", 1, true, "save and restore: kvmclock", noSuchBuild},
	{gokvm.CapKVMClockCtrl, "KVM_CAP_KVMCLOCK_CTRL", 1, true, "the guest is told of pauses, so its watchdogs stay quiet", noSuchBuild},
	{gokvm.CapEnableCAPVM, "KVM_CAP_ENABLE_CAP_VM", 1, true, "options of a VM (dirty tracking, events)", noSuchBuild},
	{gokvm.CapManualDirtyLogProtect2, "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2", 1, true, "dirty log read and re-armed in two steps", newerKernel},
	{gokvm.CapExceptionPayload, "KVM_CAP_EXCEPTION_PAYLOAD", 1, false, "a pending fault is saved with its CR2 or DR6 not yet written", "optional; Linux 4.20 or newer has it"},
	{capTripleFaultEvent, "KVM_CAP_X86_TRIPLE_FAULT_EVENT", 1, false, "a pending triple fault is saved", optionalSince},
	{gokvm.CapExitOnEmulationFailure, "KVM_CAP_EXIT_ON_EMULATION_FAILURE", 1, false, "an instruction of the guest's programs that KVM can't emulate is an exit, not a fault in the guest", "optional; Linux 5.14 or newer has it"},
	{capDirtyLogRingAcqRel, "KVM_CAP_DIRTY_LOG_RING_ACQ_REL", 1, false, "dirty pages in rings, one a vCPU (largest size in bytes); else the dirty log", optionalSince},
	{gokvm.CapTSCControl, "KVM_CAP_TSC_CONTROL", 1, false, "guest TSC at another frequency than the host's: migration between hosts of unlike clocks", "optional; needs TSC scaling in the CPU"},
}

// CapabilityStatus is one capability as found on this host.
type CapabilityStatus struct {
	Name     string `json:"name"`
	Number   int    `json:"number"`
	Meaning  string `json:"meaning"`
	Remedy   string `json:"remedy"` // what to do when it is missing
	Required bool   `json:"required"`
	Minimum  int    `json:"minimum"`
	Value    int    `json:"value"` // KVM_CHECK_EXTENSION's answer
	Present  bool   `json:"present"`
}

// probe asks for every capability of list.
func probe(list []capability, ask func(gokvm.Capability) (int, error)) ([]CapabilityStatus, error) {
	found := make([]CapabilityStatus, 0, len(list))
	for _, c := range list {
		value, err := ask(c.number)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		found = append(found, CapabilityStatus{
			Name: c.name, Number: int(c.number), Meaning: c.meaning, Remedy: c.remedy,
			Required: c.required, Minimum: c.minimum, Value: value, Present: value >= c.minimum,
		})
	}
	return found, nil
}

// missing returns an error that wraps ErrMissing and names every required
// capability that is not there, or nil.
func missing(found []CapabilityStatus) error {
	var lines []string
	for _, c := range found {
		if c.Required && !c.Present {
			lines = append(lines, fmt.Sprintf("%s (%s; found %d, need %d: %s)", c.Name, c.Meaning, c.Value, c.Minimum, c.Remedy))
		}
	}
	if len(lines) == 0 {
		return nil
	}
	return fmt.Errorf("%w %s", ErrMissing, strings.Join(lines, ", "))
}

// capabilityName returns the name of a capability on the list.
func capabilityName(number gokvm.Capability) string {
	for _, c := range capabilities {
		if c.number == number {
			return c.name
		}
	}
	return fmt.Sprintf("capability %d", number)
}
