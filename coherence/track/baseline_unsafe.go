package track

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Baselines are mapped and not on Go's heap: they are as large as memory, come and go with
// whoever watches, and must be the host's again at once. A new mapping reads as zeros and takes no
// memory until it is written.

func newTwin() []byte { return mapZeros(twinChunkBytes) }

func newSums() [][LinesPerPage]uint64 {
	return unsafe.Slice((*[LinesPerPage]uint64)(unsafe.Pointer(unsafe.SliceData(mapZeros(hashChunkBytes)))), chunkPages)
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

// mapZeros panics where Go's own allocator would end the process, too: no address space is left.
func mapZeros(sizeBytes int) []byte {
	memory, err := unix.Mmap(-1, 0, sizeBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		panic(fmt.Sprintf("track: map %d bytes: %v", sizeBytes, err))
	}
	return memory
}

func unmap(memory []byte) {
	if err := unix.Munmap(memory); err != nil {
		panic(fmt.Sprintf("track: unmap %d bytes: %v", len(memory), err))
	}
}
