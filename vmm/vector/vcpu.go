package vector

import (
	"errors"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/vmm/kvm"
)

// Access reads or writes the guest's memory at gpa, for the guest; data lies inside one page.
type Access func(gpa memory.GPA, data []byte, write bool) error

var errMode = errors.New("only done in 64-bit mode and without single-stepping")

// Do does the instruction at RIP for c, which has left Run because of it (kvm.ExitInternalError), and
// moves RIP past it. code is what kvm.Exit.Instruction returned: up to MaxBytes, none if KVM could
// not read it. mem holds the guest's page tables. The parts of the memory operand go to
// access in the order of their addresses.
//
// An *UnknownError says that nothing was done. Any other error comes from KVM, before anything was
// done or after all of it but RIP and the register; or it is access's, and then the
// parts before are done. It belongs to the thread that calls Run.
func Do(c *kvm.VCPU, code []byte, mem *memory.Guest, access Access) error {
	regs, err := c.Regs()
	if err != nil {
		return err
	}
	sregs, err := c.Sregs()
	if err != nil {
		return err
	}
	if !longMode(sregs) {
		return &UnknownError{Code: code, Err: errMode}
	}
	v := &vcpu{kvm: c, regs: regs, sregs: sregs, memory: access, paging: paging{
		cr0: sregs.CR0, cr3: sregs.CR3, cr4: sregs.CR4,
		user: sregs.SS.DPL == 3, ac: regs.RFLAGS&flagAC != 0, load: mem.LoadUint64,
	}}
	if regs.RFLAGS&flagTF != 0 {
		return run(code, v, errMode) // the trap after the instruction is the CPU's work
	}
	return run(code, v, nil)
}

// Bits of RFLAGS.
const (
	flagTF = 1 << 8
	flagRF = 1 << 16
	flagAC = 1 << 18
)

// longMode says whether the vCPU runs 64-bit code: elsewhere the same bytes mean other things.
func longMode(s *kvm.Sregs) bool {
	const lma = 1 << 10
	return s.EFER&lma != 0 && s.CS.L != 0
}

// vcpu is a KVM vCPU as a processor.
type vcpu struct {
	kvm    *kvm.VCPU
	regs   *kvm.Regs
	sregs  *kvm.Sregs
	paging paging
	memory Access
}

func (v *vcpu) registers() *registers {
	r := v.regs
	return &registers{
		GPR: [16]uint64{
			r.RAX, r.RCX, r.RDX, r.RBX, r.RSP, r.RBP, r.RSI, r.RDI,
			r.R8, r.R9, r.R10, r.R11, r.R12, r.R13, r.R14, r.R15,
		},
		RIP: r.RIP, FSBase: v.sregs.FS.Base, GSBase: v.sregs.GS.Base,
	}
}

func (v *vcpu) setRIP(rip uint64) error {
	v.regs.RIP = rip
	v.regs.RFLAGS &^= flagRF // every instruction that ends clears it
	return v.kvm.SetRegs(v.regs)
}

func (v *vcpu) xsave() (*image, error) {
	area, err := v.kvm.XSave()
	return &image{bytes: area, offset: v.kvm.XSaveOffset}, err
}

func (v *vcpu) setXSave(m *image) error { return v.kvm.SetXSave(m.bytes) }

func (v *vcpu) translate(va uint64, write bool) (memory.GPA, error) {
	return v.paging.translate(va, write)
}

func (v *vcpu) access(gpa memory.GPA, data []byte, write bool) error {
	return v.memory(gpa, data, write)
}
