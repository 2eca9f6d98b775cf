package boot

import "github.com/fineline-vmm/fineline/memory"

// The loader's own pages, all in one block of low RAM. It lies high in the 640 KiB, since small kernels
// are linked, and put their first stack and their start-up code for other CPUs, lower. It ends well below
// 0x9d000, where Linux's decompressor builds its trampoline for 5-level paging just under the EBDA while
// it still runs on the page tables below.
const (
	bootAreaStart = infoPage

	infoPage    memory.GPA = 0x90000 // PVH start info, multiboot info or Linux zero page, and what they point to
	cmdlinePage memory.GPA = 0x91000
	gdtPage     memory.GPA = 0x92000
	stackPage   memory.GPA = 0x93000
	stackTop               = stackPage + memory.PageSize
	pml4Page    memory.GPA = 0x94000
	pdptPage    memory.GPA = 0x95000
	pdPages     memory.GPA = 0x96000 // identityGiB of them, one a GiB

	bootAreaEnd = pdPages + identityGiB*memory.PageSize
)

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
