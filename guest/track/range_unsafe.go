package track

import "unsafe"

// RangeOf is where b is now. Go's garbage collector does not move it, but b must be kept alive; memory
// from unix.Mmap has pages of its own.
func RangeOf(b []byte) Range {
	return Range{Address: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))), Bytes: uint64(len(b))}
}
