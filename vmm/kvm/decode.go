package kvm

import "encoding/binary"

// maxInternalData is the length of kvm_run.internal.data.
const maxInternalData = 16

// decode fills e from the kvm_run page. Offsets are those of the page's union
// (struct kvm_run in <linux/kvm.h>).
func (c *VCPU) decode(e *Exit) {
	u := c.page.payload[:]
	le := binary.LittleEndian
	e.Reason = ExitReason(c.page.exitReason)
	switch e.Reason {
	case ExitIO:
		e.IO = IOExit{Write: u[0] == 1, Size: int(u[1]), Port: le.Uint16(u[2:]), Count: int(le.Uint32(u[4:]))}
		offset := le.Uint64(u[8:])
		e.IO.Data = c.run[offset : offset+uint64(e.IO.Size*e.IO.Count)]
	case ExitMMIO:
		n := min(le.Uint32(u[16:]), 8)
		e.MMIO = MMIOExit{Addr: le.Uint64(u), Write: u[20] != 0, Data: u[8 : 8+n : 16]}
	case ExitSystemEvent:
		e.SystemEvent = le.Uint32(u)
	case ExitUnknown, ExitFailEntry:
		e.HardwareReason = le.Uint64(u)
	case ExitInternalError:
		e.InternalSuberror = le.Uint32(u)
		e.InternalData = e.InternalData[:0]
		for i := range min(le.Uint32(u[4:]), maxInternalData) {
			e.InternalData = append(e.InternalData, le.Uint64(u[8+8*i:]))
		}
	}
}
