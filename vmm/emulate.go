package vmm

import (
	"errors"
	"fmt"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/vmm/kvm"
	"github.com/fineline-vmm/fineline/vmm/vector"
)

// emulate answers an exit for an instruction that KVM's emulator does not know; failed is how
// handleExit judged it. If the error wraps *vector.UnknownError nothing was done: once its
// Pages are given back to the guest, the guest can run the instruction itself.
func (c *vcpu) emulate(e *kvm.Exit, failed error) (next, uint32, error) {
	if e.Reason != kvm.ExitInternalError || e.InternalSuberror != kvm.InternalEmulation {
		return goOn, 0, failed
	}
	if err := vector.Do(c.kvm, e.Instruction(), c.p.mem, c.p.access); err != nil {
		return goOn, 0, fmt.Errorf("%w: %w", failed, err)
	}
	n, code := c.p.wish.get()
	return n, code, nil
}

// access reads or writes guest-physical memory for the guest: RAM, or a device in
// pieces of at most 8 bytes, as KVM hands them out.
func (p *peripherals) access(gpa memory.GPA, data []byte, write bool) error {
	ram := p.mem.ReadAt
	if write {
		ram = p.mem.WriteGuestStore
	}
	if err := ram(gpa, data); !errors.Is(err, memory.ErrOutOfRange) {
		return err
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
