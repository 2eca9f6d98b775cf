package kvm

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"sync"

	gokvm "github.com/bobuhiro11/gokvm/kvm"
	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/memory"
)

// Addresses below 4 GiB that KVM needs for itself and no region may cover: one
// page for the identity page table, then three for the task segment.
const (
	identityMapAddr = 0xfffb_c000
	tssAddr         = 0xfffb_d000
)

// VMOptions are the choices that KVM wants before the first vCPU.
type VMOptions struct {
	// DirtyRingBytesPerVCPU is the size of each vCPU's dirty ring: a power of two
	// of at least a page, at most what KVM_CAP_DIRTY_LOG_RING_ACQ_REL says; 0 means
	// the dirty log.
	DirtyRingBytesPerVCPU uint32
}

// VM is one virtual machine with its in-kernel PICs, IOAPIC and PIT. Its methods
// are safe for concurrent use, but for Close and, unless said otherwise, for
// those that need paused vCPUs.
type VM struct {
	sys          *System
	fd           int
	xsaveBytes   int
	xsaveOffsets xsaveOffsets
	savedMSRs    []uint32   // what State reads, found once: State is part of downtime
	ring         *dirtyRing // nil: dirty log

	// slotsMu is held while slots are missing (RemapMemory, SetAccess) and while their dirty
	// logs are read, which fails for a slot that is missing. It comes before dirtyRing.mu and mu.
	slotsMu sync.Mutex
	log     *dirtyLog // nil: nobody has asked for it, or there is a ring; guarded by slotsMu

	tscMu sync.Mutex // held while a vCPU finds the shift: ioctls of its own
	tsc   tscShift

	mu       sync.Mutex
	mappings []memory.Mapping // all RAM
	slots    []slot           // the index is KVM's number
	logging  bool
	vcpus    []*VCPU
	// scratch is where the kernel reads and writes: on the heap, since gokvm's
	// calls don't keep a stack-allocated struct in place. Guarded by mu.
	scratch struct {
		irqchip gokvm.IRQChip
		pit     gokvm.PITState2
		clock   gokvm.ClockData
	}
}

// CreateVM makes a VM with in-kernel interrupt controllers and PIT, and without
// memory and vCPUs. The caller owns it and closes it.
func (s *System) CreateVM(o VMOptions) (*VM, error) {
	fd, err := ioctl(s.fd, reqCreateVM, 0)
	if err != nil {
		return nil, err
	}
	unix.CloseOnExec(fd)
	v := &VM{sys: s, fd: fd}
	if err := v.setUp(o); err != nil {
		return nil, errors.Join(err, v.Close())
	}
	return v, nil
}

func (v *VM) setUp(o VMOptions) error {
	if err := v.setAddresses(); err != nil {
		return err
	}
	if err := v.createDevices(); err != nil {
		return err
	}
	if err := v.enableEvents(); err != nil {
		return err
	}
	var err error
	// On the VM, where the answer includes features that were enabled for it.
	if v.xsaveBytes, err = ioctl(v.fd, reqCheckExtension, uintptr(gokvm.CapXSave2)); err != nil {
		return err
	}
	if v.xsaveOffsets, err = v.sys.xsaveOffsets(); err != nil {
		return err
	}
	listed, err := v.sys.MSRIndices()
	if err != nil {
		return err
	}
	v.savedMSRs = append(listed, unlistedMSRs()...)
	if o.DirtyRingBytesPerVCPU != 0 {
		return v.enableDirtyRing(o.DirtyRingBytesPerVCPU)
	}
	// Not INITIALLY_SET: the first Collect would report every page, and a migration
	// sends every page anyway before it.
	const manualProtectEnable = 1
	return v.enable(gokvm.CapManualDirtyLogProtect2, manualProtectEnable)
}

func (v *VM) setAddresses() error {
	if err := named("KVM_SET_TSS_ADDR", gokvm.SetTSSAddr(uintptr(v.fd), tssAddr)); err != nil {
		return err
	}
	return v.setIdentityMap(identityMapAddr)
}

func (v *VM) createDevices() error {
	if err := named("KVM_CREATE_IRQCHIP", gokvm.CreateIRQChip(uintptr(v.fd))); err != nil {
		return err
	}
	if err := v.routeLegacyIRQs(); err != nil {
		return err
	}
	return v.createPIT()
}

// enableEvents makes saved events exact: a fault that is pending keeps its CR2 or
// DR6 apart, and a pending triple fault is part of the state. And an instruction that KVM
// can't emulate always ends Run: else it becomes an invalid-opcode exception at CPL 3.
func (v *VM) enableEvents() error {
	for _, c := range []gokvm.Capability{gokvm.CapExceptionPayload, capTripleFaultEvent, gokvm.CapExitOnEmulationFailure} {
		if v.sys.capability(c) == 0 {
			continue
		}
		if err := v.enable(c, 1); err != nil {
			return err
		}
	}
	return nil
}

func (v *VM) enableDirtyRing(sizeBytes uint32) error {
	most := v.sys.capability(capDirtyLogRingAcqRel)
	if most == 0 {
		return fmt.Errorf("%w KVM_CAP_DIRTY_LOG_RING_ACQ_REL: use the dirty log, or Linux 6.1 or newer", ErrMissing)
	}
	if bits.OnesCount32(sizeBytes) != 1 || sizeBytes < memory.PageSize || uint64(sizeBytes) > uint64(most) {
		return fmt.Errorf("dirty ring of %d bytes: must be a power of two from %d to %d", sizeBytes, memory.PageSize, most)
	}
	if err := v.enable(capDirtyLogRingAcqRel, uint64(sizeBytes)); err != nil {
		return err
	}
	v.ring = &dirtyRing{vm: v, sizeBytes: int(sizeBytes)}
	return nil
}

// DirtySource returns the guest's half of dirty tracking of g, the memory given
// to MapMemory: by ring or log, as the VM was made. The vCPUs may run; before the
// last Collect of a migration they must have left KVM_RUN, so that what the CPU
// itself buffers has reached the ring or log.
func (v *VM) DirtySource(g *memory.Guest) memory.DirtySource {
	if v.ring != nil {
		v.ring.attach(g)
		return v.ring
	}
	v.slotsMu.Lock()
	defer v.slotsMu.Unlock()
	if v.log == nil {
		v.log = &dirtyLog{vm: v, carried: g.NewPageSet()}
	}
	return v.log
}

// Close closes the vCPUs that are still open and destroys the VM; no vCPU may be
// in Run. A second Close does nothing.
func (v *VM) Close() error {
	var errs []error
	for _, c := range v.openVCPUs() { // without v.mu: dirtyRing.mu comes first
		errs = append(errs, c.Close())
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.fd < 0 {
		return nil
	}
	errs = append(errs, named("close VM", unix.Close(v.fd)))
	v.fd = -1
	return errors.Join(errs...)
}

// openVCPUs returns the vCPUs that exist now.
func (v *VM) openVCPUs() []*VCPU {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.vcpus)
}
