package vmm

import (
	"errors"
	"fmt"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/vmm/kvm"
	"github.com/fineline-vmm/fineline/vmm/vector"
)

// emulate answers an exit for an instruction that KVM's emulator does not know; failed is how
// handleExit judged it. What is not known here either the guest does itself: the pages that
// it touches are given back to it, while the vCPU is held.
func (c *vcpu) emulate(e *kvm.Exit, failed error) (next, uint32, error) {
	if e.Reason != kvm.ExitInternalError || e.InternalSuberror != kvm.InternalEmulation {
		return goOn, 0, failed
	}
	err := vector.Do(c.kvm, e.Instruction(), c.p.mem, c.p.access)
	if unknown := (*vector.UnknownError)(nil); errors.As(err, &unknown) {
		c.hold()
		go c.giveBack(unknown.Pages, c.describe(fmt.Errorf("%w: %w", failed, err)))
		return leave, 0, nil
	}
	if err != nil {
		return goOn, 0, fmt.Errorf("%w: %w", failed, err)
	}
	n, code := c.p.wish.get()
	return n, code, nil
}

// giveBack runs beside the vCPU, which is held: slots change only while no vCPU is in the guest. When none of the
// pages was watched, failed is what ends the run.
func (c *vcpu) giveBack(pages []memory.GPA, failed error) {
	given, err := c.p.ram.Blind(pages)
	if err != nil || !given {
		c.stopSelf(event{err: errors.Join(failed, err)})
	}
	c.unhold()
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
