package vmm

import (
	"github.com/fineline-vmm/fineline/vmm/boot"
	"github.com/fineline-vmm/fineline/vmm/kvm"
)

// EnterKernel gives the boot processor the registers of a kernel's entry. What the
// entry does not name keeps its value after reset.
func EnterKernel(v *kvm.VCPU, e boot.Entry) error {
	sregs, err := v.Sregs()
	if err != nil {
		return err
	}
	code, data, task := e.Mode.Segments()
	sregs.CS = segment(code)
	sregs.DS, sregs.ES, sregs.FS, sregs.GS, sregs.SS = segment(data), segment(data), segment(data), segment(data), segment(data)
	sregs.TR = segment(task)
	sregs.GDT = kvm.Descriptor{Base: uint64(e.GDT), Limit: boot.GDTSizeBytes - 1}
	sregs.IDT = kvm.Descriptor{}
	sregs.CR0, sregs.CR4, sregs.EFER = e.Mode.ControlRegisters()
	sregs.CR3 = uint64(e.CR3)
	if err := v.SetSregs(sregs); err != nil {
		return err
	}
	const flagsFixed = 1 << 1 // RFLAGS bit 1 is always one
	return v.SetRegs(&kvm.Regs{RIP: e.RIP, RAX: e.RAX, RBX: e.RBX, RSI: e.RSI, RSP: e.RSP, RFLAGS: flagsFixed})
}

func segment(s boot.Segment) kvm.Segment {
	return kvm.Segment{
		Base: s.Base, Limit: s.LimitBytes, Selector: s.Selector, Typ: s.Type, Present: 1,
		S: bit(s.CodeOrData), L: bit(s.Long), DB: bit(s.Default32), G: bit(s.Granular),
	}
}

func bit(set bool) uint8 {
	if set {
		return 1
	}
	return 0
}
