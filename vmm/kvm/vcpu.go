package kvm

import (
	"errors"
	"fmt"
	"sync"

	gokvm "github.com/bobuhiro11/gokvm/kvm"
	"golang.org/x/sys/unix"
)

// Registers as KVM has them. Sregs is the form of KVM_GET_SREGS2: without the
// interrupt bitmap (pending interrupts are among the events), with the PAE pointers.
type (
	Regs       = gokvm.Regs
	Sregs      = gokvm.SRegs2
	Segment    = gokvm.Segment
	Descriptor = gokvm.Descriptor
)

// VCPU is one virtual processor. One thread calls Run: KVM ties a vCPU to the thread that runs it. The
// other methods may be called on any thread, one at a time, and not beside Run (KVM would let them wait
// until it returns); SetImmediateExit at any time.
type VCPU struct {
	vm *VM
	id int
	fd int

	run        []byte // the mapped kvm_run pages
	page       *runPage
	ring       []dirtyGFN // nil without a dirty ring; guarded by dirtyRing.mu
	ringNext   uint32     // next entry to harvest
	exit       Exit
	unfinished bool // an access was handed to user space and not completed yet
	cpuid      []CPUIDEntry
	tscKHz     uint64 // see tscFrequency
	xsave      []byte // what XSave returns

	// closeMu keeps the mapping in place under SetImmediateExit.
	closeMu sync.Mutex

	// scratch is where the kernel reads and writes: on the heap, since gokvm's
	// calls don't keep a stack-allocated struct in place.
	scratch struct {
		regs      gokvm.Regs
		sregs     gokvm.SRegs2
		debug     gokvm.DebugRegs
		xcrs      gokvm.XCRS
		events    gokvm.VCPUEvents
		mp        gokvm.MPState
		lapic     gokvm.LAPICState
		msrs      msrBatch
		tscOffset uint64
	}
}

// CreateVCPU makes the vCPU with the APIC id id. Call it on the thread that will
// run it. The caller closes it, before the VM.
func (v *VM) CreateVCPU(id int) (*VCPU, error) {
	if id < 0 {
		return nil, fmt.Errorf("KVM_CREATE_VCPU: id %d", id)
	}
	fd, err := ioctl(v.fd, reqCreateVCPU, uintptr(id))
	if err != nil {
		return nil, fmt.Errorf("vCPU %d: %w", id, err)
	}
	c := &VCPU{vm: v, id: id, fd: fd}
	if err := c.mapRun(); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.vcpus = append(v.vcpus, c)
	return c, nil
}

// Exit describes the exit of the last Run that returned nil. The value is reused,
// and its Data slices are the kernel's own pages: valid until the next Run or Close.
func (c *VCPU) Exit() *Exit {
	c.decode(&c.exit)
	return &c.exit
}

// SetImmediateExit makes the next entry of the guest (and, together with a signal
// to the thread, one under way) return unix.EINTR at once. The last access is still
// completed first, which may hand out its next part: an access of 16 bytes is two
// of 8, and Run then returns nil. Safe from any thread, also after Close.
func (c *VCPU) SetImmediateExit(on bool) {
	c.closeMu.Lock()
	defer c.closeMu.Unlock()
	if c.page != nil {
		c.setImmediateExit(on)
	}
}

// HarvestRing makes room after ExitDirtyRingFull: the pages in all rings are kept
// for the next Collect.
func (c *VCPU) HarvestRing() error {
	if c.vm.ring == nil {
		return ErrNoRing
	}
	c.vm.slotsMu.Lock()
	defer c.vm.slotsMu.Unlock()
	return c.vm.ring.drain()
}

// Regs reads the general registers.
func (c *VCPU) Regs() (*Regs, error) {
	if err := c.getRegs(&c.scratch.regs); err != nil {
		return nil, err
	}
	r := c.scratch.regs
	return &r, nil
}

// SetRegs writes the general registers.
func (c *VCPU) SetRegs(r *Regs) error {
	c.scratch.regs = *r
	return named("KVM_SET_REGS", gokvm.SetRegs(uintptr(c.fd), &c.scratch.regs))
}

// Sregs reads segment and control registers.
func (c *VCPU) Sregs() (*Sregs, error) {
	if err := gokvm.GetSRegs2(uintptr(c.fd), &c.scratch.sregs); err != nil {
		return nil, named("KVM_GET_SREGS2", err)
	}
	s := c.scratch.sregs
	return &s, nil
}

// SetSregs writes segment and control registers.
func (c *VCPU) SetSregs(s *Sregs) error {
	c.scratch.sregs = *s
	return named("KVM_SET_SREGS2", gokvm.SetSRegs2(uintptr(c.fd), &c.scratch.sregs))
}

// Close releases the vCPU; it must not be in Run. A second Close does nothing.
func (c *VCPU) Close() error {
	if c.vm.ring != nil {
		c.vm.ring.mu.Lock()
		defer c.vm.ring.mu.Unlock()
	}
	c.closeMu.Lock()
	defer c.closeMu.Unlock()
	if c.fd < 0 {
		return nil
	}
	err := errors.Join(c.unmapRun(), named("close vCPU", unix.Close(c.fd)))
	c.fd = -1
	return err
}
