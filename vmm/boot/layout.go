package boot

import (
	"fmt"

	"github.com/fineline-vmm/fineline/memory"
)

// The loader's own pages are one block, its area. These are offsets in it.
const (
	infoPage    = 0x0000 // PVH start info, multiboot info or Linux zero page, and what they point to
	cmdlinePage = 0x1000
	gdtPage     = 0x2000
	stackPage   = 0x3000
	stackTop    = stackPage + memory.PageSize
	pml4Page    = 0x4000
	pdptPage    = 0x5000
	pdPages     = 0x6000 // identityGiB of them, one a GiB

	areaBytes = pdPages + identityGiB*memory.PageSize
)

// lowAreaEnd bounds the area where it is in the 640 KiB: Linux's decompressor builds its trampoline for
// 5-level paging just under the EBDA, from 0x9d000 on, while it still runs on the page tables of the area.
const lowAreaEnd = 0x9a000

// placeArea claims the area once the kernel has its place: high in the 640 KiB, since small kernels are
// linked, and put their first stack and their start-up code for other CPUs, lower; elsewhere if the kernel
// itself is there.
func (l *loader) placeArea() error {
	start, ok := l.room.highest(areaBytes, memory.PageSize, lowAreaEnd)
	if !ok {
		start, ok = l.room.highest(areaBytes, oneMiB, fourGiB)
	}
	if !ok {
		return fmt.Errorf("%w: the loader's boot information needs %d bytes, usable RAM is %v; give the guest more memory",
			ErrNoRoom, areaBytes, describeSpans(l.room.usable))
	}
	l.area = memory.GPA(start)
	return l.room.claim(span{start, start + areaBytes, "the loader's boot information"})
}

// identityGiB is how much of the address space the page tables of Long64 map one to one: all that the
// loader uses, for it places nothing above 4 GiB.
const identityGiB = 4

// fourGiB bounds kernel and initrd in every protocol: entry is 32-bit, or maps only this much.
const fourGiB = 4 << 30

// oneMiB is where RAM begins that no firmware or ISA card ever claimed.
const oneMiB = 1 << 20

// Inside infoPage, PVH: three structures, the last with MaxE820Entries of 24 bytes.
const (
	pvhModules = infoPage + 0x40
	pvhMemmap  = infoPage + 0x80
)

// Inside infoPage, multiboot.
const (
	mbModules    = infoPage + 0x80
	mbLoaderName = infoPage + 0x90
	mbModuleName = infoPage + 0xa0
	mbMemmap     = infoPage + 0x100
)

// maxCmdlineBytes leaves room for the NUL.
const maxCmdlineBytes = memory.PageSize - 1
