// Package abi is the interface of Fineline's FPGA device in Go: the registers and the entries of its
// rings. guest/include/fineline_fpga.h is the definition and explains each number; a test compares the two.
//
// Entries are encoded by hand into bytes and not laid over memory as structs: so no unsafe is needed, and
// what the device writes is decoded from a copy that it can no longer change.
package abi
