package kvm

import "unsafe"

// Compile-time checks of the saved forms: every byte is a named field's, so that no stale
// memory leaves the process, and whoever changes a size changes the state's version.
var (
	_ [16 + 16 + 216 + 112 + 8]byte                       = [unsafe.Sizeof(savedVM{})]byte{}
	_ [144 + 320 + 392 + 24 + 128 + 64 + 4*4 + 4 + 4]byte = [unsafe.Sizeof(savedVCPU{})]byte{}
	_ [savedCPUIDBytes]byte                               = [unsafe.Sizeof(CPUIDEntry{})]byte{}
	_ [savedMSRBytes]byte                                 = [unsafe.Sizeof(MSR{})]byte{}
)

const (
	savedCPUIDBytes = 7 * 4
	savedMSRBytes   = 4 + 4 + 8
)

// image is v as it lies in memory. T is one of the saved forms: no pointers, no unnamed padding.
func image[T savedVM | savedVCPU](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}

// imageOf is image for a list.
func imageOf[T CPUIDEntry | MSR](list []T) []byte {
	var one T
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(list))), uintptr(len(list))*unsafe.Sizeof(one))
}
