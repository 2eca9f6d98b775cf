package baseline

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/coherence/diff"
)

// NewTwins returns room for the twins of a chunk's pages: zeros, which take no memory until they are
// written. It is nil where the host has no more address space to give. The caller frees it.
func NewTwins() []byte { return mapZeros(TwinsBytes) }

// NewSums returns room for the hashes of a chunk's lines, one row a page, as NewTwins does.
func NewSums() [][diff.PageLines]uint64 {
	memory := mapZeros(SumsBytes)
	if memory == nil {
		return nil
	}
	return unsafe.Slice((*[diff.PageLines]uint64)(unsafe.Pointer(unsafe.SliceData(memory))), ChunkPages)
}

// FreeTwins gives back what NewTwins returned.
func FreeTwins(twins []byte) {
	if twins != nil {
		unmap(twins)
	}
}

// FreeSums gives back what NewSums returned.
func FreeSums(sums [][diff.PageLines]uint64) {
	if sums != nil {
		unmap(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(sums))), SumsBytes))
	}
}

func mapZeros(sizeBytes int) []byte {
	memory, err := unix.Mmap(-1, 0, sizeBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil
	}
	return memory
}

// unmap can only fail where a hole in a merged mapping is one mapping too many; then at least the memory goes.
func unmap(memory []byte) {
	if unix.Munmap(memory) != nil {
		_ = unix.Madvise(memory, unix.MADV_DONTNEED)
	}
}
