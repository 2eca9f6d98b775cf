// Package predict says which pages a guest will want next, from the pages that it had to wait
// for. It is pure: no I/O, no clock, no goroutine.
package predict
