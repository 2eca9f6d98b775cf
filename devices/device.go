package devices

// Device is what a bus routes accesses to. off is the offset of the access in
// the range that the device claimed, and off+len(p) never exceeds that range.
// Read fills all of p; Write must not keep p. Both are called from several
// vCPU threads at once and must not block.
type Device interface {
	Read(off uint64, p []byte)
	Write(off uint64, p []byte)
}

// Line is one interrupt line. Set is cheap to repeat but devices call it on
// changes only. It must not call back into the device.
type Line interface {
	Set(high bool)
}

// LineFunc makes a Line of a function.
type LineFunc func(high bool)

// Set calls f.
func (f LineFunc) Set(high bool) { f(high) }

// NoLine is the Line of a device whose interrupt is not wired.
var NoLine Line = LineFunc(func(bool) {})
