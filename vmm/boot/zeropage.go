package boot

import (
	"encoding/binary"

	"github.com/fineline-vmm/fineline/memory"
)

// Offsets in struct boot_params outside the setup header (Linux, Documentation/arch/x86/zero-page.rst).
const (
	zpACPIRSDP      = 0x070
	zpE820Count     = 0x1e8
	zpHeaderMax     = 0x290 // where the next member begins
	zpE820Table     = 0x2d0
	zpE820EntrySize = 20
)

// writeZeroPage stores struct boot_params. All members but the ones below stay 0, as the protocol asks:
// the sentinel at 0x1ef, which is 0 too, says that this was done.
func (l *loader) writeZeroPage(h setupHeader, kernelStart uint64, initrd span) error {
	le := binary.LittleEndian
	zp := make([]byte, memory.PageSize)
	// What a later protocol's header has beyond its place here has no place in this structure.
	copy(zp[hdrStart:zpHeaderMax], l.head[hdrStart:h.end])
	zp[hdrTypeOfLoader] = undefinedLoader
	le.PutUint32(zp[hdrCode32Start:], uint32(kernelStart))
	le.PutUint32(zp[hdrCmdlinePointer:], uint32(l.area+cmdlinePage))
	// Both below 4 GiB, so the ext_ramdisk halves stay 0.
	le.PutUint32(zp[hdrRamdiskImage:], uint32(initrd.start))
	le.PutUint32(zp[hdrRamdiskSize:], uint32(initrd.end-initrd.start))
	le.PutUint64(zp[zpACPIRSDP:], uint64(l.p.RSDP))

	zp[zpE820Count] = byte(len(l.p.E820))
	for i, e := range l.p.E820 {
		p := zp[zpE820Table+i*zpE820EntrySize:]
		le.PutUint64(p[0:], uint64(e.Base))
		le.PutUint64(p[8:], e.SizeBytes)
		le.PutUint32(p[16:], uint32(e.Type))
	}
	return l.store(store{l.area + infoPage, zp})
}
