package vmm

import (
	"errors"
	"fmt"

	"github.com/sirupsen/logrus"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/vmm/kvm"
	"github.com/fineline-vmm/fineline/vmm/vector"
)

// mayRetry is how often a vCPU may come back to what nobody can serve without any page
// having been given back for it: another vCPU may just have had the same page given back, or
// unmapped it, or nobody tracks any more. Then the guest does it natively at the next try. After that all
// pages are given back, and only when none exits is it the guest's own doing.
const mayRetry = 3

// emulate answers an exit because of what KVM cannot do where pages exit: an instruction that its emulator does not
// know, or an exception whose stack is there; failed is how handleExit judged it. What is not known here either
// the guest does itself: the pages that it touches are given back to it, while the vCPU is held.
func (c *vcpu) emulate(e *kvm.Exit, failed error) (next, uint32, error) {
	if e.Reason != kvm.ExitInternalError {
		return goOn, 0, failed
	}
	var pages []memory.GPA
	if e.InternalSuberror == kvm.InternalEmulation {
		err := vector.Do(c.kvm, e.Instruction(), c.p.mem, c.p.access)
		if err == nil {
			c.unserved = 0
			n, code := c.p.wish.get()
			return n, code, nil
		}
		failed = fmt.Errorf("%w: %w", failed, err)
		unknown := (*vector.UnknownError)(nil)
		if !errors.As(err, &unknown) {
			return goOn, 0, failed
		}
		pages = unknown.Pages
	}
	if c.unserved > mayRetry {
		c.unserved = 0
		return goOn, 0, c.refuse(e, failed)
	}
	c.hold()
	go c.giveBack(pages, failed)
	return leave, 0, nil
}

// giveBack runs beside the vCPU, which is held: slots change only while no vCPU is in the guest.
func (c *vcpu) giveBack(pages []memory.GPA, failed error) {
	given, err := c.p.ram.Blind(pages)
	if err != nil || !given && c.unserved == mayRetry {
		given, err = c.p.ram.BlindAll()
	}
	if err != nil {
		c.stopSelf(event{err: fmt.Errorf("vCPU %d: %w", c.id, errors.Join(failed, err))})
	}
	c.unserved++
	if given {
		c.unserved = 0
	}
	c.unhold()
}

// refuse is for an instruction on what is not RAM, a device's registers say. A program of the guest gets the
// exception that KVM gives it where the exit is not enabled; a kernel cannot go on.
func (c *vcpu) refuse(e *kvm.Exit, failed error) error {
	sregs, err := c.kvm.Sregs()
	if err != nil || sregs.SS.DPL != 3 || e.InternalSuberror != kvm.InternalEmulation {
		return errors.Join(failed, err)
	}
	c.complain.Do(func() { logrus.Warnf("%v; the guest's program gets an invalid-opcode exception", c.describe(failed)) })
	return c.kvm.RaiseInvalidOpcode()
}

// access reads or writes guest-physical memory for the guest: RAM, or a device in
// pieces of at most 8 bytes, as KVM hands them out.
func (p *peripherals) access(gpa memory.GPA, data []byte, write bool) error {
	if p.ram.Access(p.cpu, gpa, data, write) {
		return nil
	}
	for len(data) > 0 {
		n := min(8, len(data))
		if write {
			p.mmio.Write(uint64(gpa), data[:n])
		} else {
			p.mmio.Read(uint64(gpa), data[:n])
		}
		gpa, data = gpa+memory.GPA(n), data[n:]
	}
	return nil
}
