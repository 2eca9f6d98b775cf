// Package tracktest is the other side of guest/track for tests: physical memory with a model of the
// device on it, and an address space whose pages move when a test wants.
//
// The model does each command inside the store to the doorbell, checks what the header says the device
// checks, and tracks in the modes diff and stores. It is written from guest/include/fineline_fpga.h and not
// from the device's code.
package tracktest
