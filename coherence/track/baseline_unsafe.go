package track

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Baselines are mapped and not on Go's heap: they are as large as memory, come and go with
// whoever watches, and must be the host's again at once. A new mapping reads as zeros and takes no
// memory until it is written.

// newTwin returns nil where the host has no more address space to give.
func newTwin() []byte { return mapZeros(twinChunkBytes) }

func newSums() [][LinesPerPage]uint64 {
	memory := mapZeros(hashChunkBytes)
	if memory == nil {
		return nil
	}
	return unsafe.Slice((*[LinesPerPage]uint64)(unsafe.Pointer(unsafe.SliceData(memory))), chunkPages)
}

func freeTwin(twin []byte) {
	if twin != nil {
		unmap(twin)
	}
}

func freeSums(sums [][LinesPerPage]uint64) {
	if sums != nil {
		unmap(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(sums))), hashChunkBytes))
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
