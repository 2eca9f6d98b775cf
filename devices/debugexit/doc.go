// Package debugexit is QEMU's isa-debug-exit: a guest that writes v ends the
// machine with status v<<1|1, which is never 0, so a test kernel can tell its
// verdict from a clean power-off. Test kernels made for QEMU use port 0xf4 with
// four bytes; any offset and width in it ends the machine, as there.
//
// The device only asks: the machine decides when to stop, and a guest that
// writes twice before it is stopped asks twice. It has no state.
package debugexit
