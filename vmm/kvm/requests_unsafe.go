package kvm

import (
	"unsafe"

	gokvm "github.com/bobuhiro11/gokvm/kvm"
)

// request is an ioctl's number together with the name that its errors carry.
type request struct {
	name   string
	number uintptr
}

// Requests that gokvm does not have or gets wrong; the reason stands at each group.
var (
	// gokvm's Run retries EINTR, CREATE_VM can be interrupted by the Go runtime's own
	// preemption signal and gokvm does not retry that one.
	reqGetAPIVersion   = request{"KVM_GET_API_VERSION", gokvm.IIO(0x00)}
	reqCreateVM        = request{"KVM_CREATE_VM", gokvm.IIO(0x01)}
	reqCheckExtension  = request{"KVM_CHECK_EXTENSION", gokvm.IIO(0x03)}
	reqGetVCPUMmapSize = request{"KVM_GET_VCPU_MMAP_SIZE", gokvm.IIO(0x04)}
	reqCreateVCPU      = request{"KVM_CREATE_VCPU", gokvm.IIO(0x41)}
	reqRun             = request{"KVM_RUN", gokvm.IIO(0x80)}

	// gokvm drops the kernel's count, so that one refused MSR silently hides all later ones.
	reqGetMSRs = request{"KVM_GET_MSRS", gokvm.IIOWR(0x88, 8)}
	reqSetMSRs = request{"KVM_SET_MSRS", gokvm.IIOW(0x89, 8)}

	// gokvm passes the address of 4 bytes where the kernel reads 8.
	reqSetIdentityMapAddr = request{"KVM_SET_IDENTITY_MAP_ADDR", gokvm.IIOW(0x48, 8)}
	// gokvm offers no flags; Linux calibrates by port 0x61, which needs KVM_PIT_SPEAKER_DUMMY.
	reqCreatePIT2 = request{"KVM_CREATE_PIT2", gokvm.IIOW(0x77, unsafe.Sizeof(pitConfig{}))}
	// gokvm's routing entry is 24 bytes, the kernel's 48.
	reqSetGSIRouting = request{"KVM_SET_GSI_ROUTING", gokvm.IIOW(0x6a, 8)}
	// gokvm has only IRQ_LINE_STATUS, with its struct on the stack, into which the kernel writes back.
	reqIRQLine = request{"KVM_IRQ_LINE", gokvm.IIOW(0x61, unsafe.Sizeof(irqLevel{}))}

	// gokvm allocates the struct itself, where inlining may place it on the stack.
	reqGetRegs = request{"KVM_GET_REGS", gokvm.IIOR(0x81, unsafe.Sizeof(gokvm.Regs{}))}
	// gokvm turns ENOENT (no log on this slot) into success.
	reqGetDirtyLog = request{"KVM_GET_DIRTY_LOG", gokvm.IIOW(0x42, unsafe.Sizeof(dirtyLogArg{}))}

	// Missing in gokvm.
	reqEnableCap       = request{"KVM_ENABLE_CAP", gokvm.IIOW(0xa3, unsafe.Sizeof(enableCap{}))}
	reqSignalMSI       = request{"KVM_SIGNAL_MSI", gokvm.IIOW(0xa5, unsafe.Sizeof(msi{}))}
	reqKVMClockCtrl    = request{"KVM_KVMCLOCK_CTRL", gokvm.IIO(0xad)}
	reqClearDirtyLog   = request{"KVM_CLEAR_DIRTY_LOG", gokvm.IIOWR(0xc0, unsafe.Sizeof(clearDirtyLogArg{}))}
	reqResetDirtyRings = request{"KVM_RESET_DIRTY_RINGS", gokvm.IIO(0xc7)}
	reqGetXSave2       = request{"KVM_GET_XSAVE2", gokvm.IIOR(0xcf, xsaveHeaderBytes)}
	reqSetXSave        = request{"KVM_SET_XSAVE", gokvm.IIOW(0xa5, xsaveHeaderBytes)}
	reqGetDeviceAttr   = request{"KVM_GET_DEVICE_ATTR", gokvm.IIOW(0xe2, unsafe.Sizeof(deviceAttr{}))}
	reqSetDeviceAttr   = request{"KVM_SET_DEVICE_ATTR", gokvm.IIOW(0xe1, unsafe.Sizeof(deviceAttr{}))}
)

// xsaveHeaderBytes is sizeof(struct kvm_xsave), part of the request's number; the data is as
// long as KVM_CAP_XSAVE2 says.
const xsaveHeaderBytes = 4096

// Mirrors of <linux/kvm.h> and <asm/kvm.h>; each has its size checked below.

// struct kvm_pit_config
type pitConfig struct {
	flags uint32
	_     [15]uint32
}

// struct kvm_irq_level
type irqLevel struct {
	irq, level uint32
}

// struct kvm_irq_routing_entry with its union as kvm_irq_routing_irqchip
type irqRoutingEntry struct {
	gsi, kind, flags, _ uint32
	irqchip, pin        uint32
	_                   [6]uint32
}

// struct kvm_irq_routing with room for the legacy routes
type irqRouting struct {
	count, flags uint32
	entries      [maxRoutes]irqRoutingEntry
}

// struct kvm_enable_cap
type enableCap struct {
	capability, flags uint32
	args              [4]uint64
	_                 [64]byte
}

// struct kvm_msi
type msi struct {
	addressLo, addressHi, data, flags, devid uint32
	_                                        [12]byte
}

// struct kvm_dirty_log
type dirtyLogArg struct {
	slot, _ uint32
	bitmap  uint64
}

// struct kvm_clear_dirty_log
type clearDirtyLogArg struct {
	slot, pages uint32
	firstPage   uint64
	bitmap      uint64
}

// struct kvm_device_attr
type deviceAttr struct {
	flags, group uint32
	attr         uint64
	addr         uint64
}

// struct kvm_msrs with room for the most entries that one call takes
type msrBatch struct {
	count, _ uint32
	entries  [maxMSRBatch]MSR
}

// struct kvm_dirty_gfn
type dirtyGFN struct {
	flags, slot uint32
	offset      uint64
}

// The start of struct kvm_run; payload is its union.
type runPage struct {
	// requestInterruptWindow is byte 0, immediateExit byte 1: see setImmediateExit.
	control    uint32
	_          uint32
	exitReason uint32
	_          uint32
	_          [2]uint64 // cr8, apic_base
	payload    [256]byte
}

// Compile-time checks: an array type's length must be the kernel's size.
var (
	_ [64]byte                 = [unsafe.Sizeof(pitConfig{})]byte{}
	_ [8]byte                  = [unsafe.Sizeof(irqLevel{})]byte{}
	_ [48]byte                 = [unsafe.Sizeof(irqRoutingEntry{})]byte{}
	_ [8 + maxRoutes*48]byte   = [unsafe.Sizeof(irqRouting{})]byte{}
	_ [104]byte                = [unsafe.Sizeof(enableCap{})]byte{}
	_ [32]byte                 = [unsafe.Sizeof(msi{})]byte{}
	_ [16]byte                 = [unsafe.Sizeof(dirtyLogArg{})]byte{}
	_ [24]byte                 = [unsafe.Sizeof(clearDirtyLogArg{})]byte{}
	_ [24]byte                 = [unsafe.Sizeof(deviceAttr{})]byte{}
	_ [8 + maxMSRBatch*16]byte = [unsafe.Sizeof(msrBatch{})]byte{}
	_ [16]byte                 = [unsafe.Sizeof(dirtyGFN{})]byte{}
	_ [32 + 256]byte           = [unsafe.Sizeof(runPage{})]byte{}
	_ [32]byte                 = [unsafe.Offsetof(runPage{}.payload)]byte{}

	// gokvm's mirrors that this package uses.
	_ [144]byte  = [unsafe.Sizeof(gokvm.Regs{})]byte{}
	_ [320]byte  = [unsafe.Sizeof(gokvm.SRegs2{})]byte{}
	_ [24]byte   = [unsafe.Sizeof(gokvm.Segment{})]byte{}
	_ [16]byte   = [unsafe.Sizeof(gokvm.Descriptor{})]byte{}
	_ [128]byte  = [unsafe.Sizeof(gokvm.DebugRegs{})]byte{}
	_ [392]byte  = [unsafe.Sizeof(gokvm.XCRS{})]byte{}
	_ [64]byte   = [unsafe.Sizeof(gokvm.VCPUEvents{})]byte{}
	_ [4]byte    = [unsafe.Sizeof(gokvm.MPState{})]byte{}
	_ [1024]byte = [unsafe.Sizeof(gokvm.LAPICState{})]byte{}
	_ [520]byte  = [unsafe.Sizeof(gokvm.IRQChip{})]byte{}
	_ [112]byte  = [unsafe.Sizeof(gokvm.PITState2{})]byte{}
	_ [48]byte   = [unsafe.Sizeof(gokvm.ClockData{})]byte{}
	_ [32]byte   = [unsafe.Sizeof(gokvm.UserspaceMemoryRegion{})]byte{}
	_ [40]byte   = [unsafe.Sizeof(gokvm.CPUIDEntry2{})]byte{}
)
