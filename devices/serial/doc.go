// Package serial is a 16550A UART (National Semiconductor PC16550D data sheet) at
// eight ports, with a host writer at its output and Feed at its input.
//
// # Output
//
// A vCPU never waits for the host. Bytes go to a queue of QueueBytes that one
// goroutine, the drainer, writes out. The queue stands for the wire: a byte in it
// counts as sent, so the line status shows the transmitter empty as long as the
// queue has room for a full transmit FIFO, and clearing the transmit FIFO does not
// clear the queue. Otherwise every console byte would cost a guest polls until
// the host has scheduled the drainer. When the host does not keep up, THRE and
// TEMT fall until there is room again: that is the back-pressure. A guest that
// writes all the same loses the byte once the queue is full, as on hardware; it is
// counted.
//
// Bytes leave the queue only after the host took them. Pause lets the write that
// runs now end (at once where the writer has write deadlines), then State holds
// the unsent bytes exactly once. A device is paused after Restore, because at the
// destination of a migration nothing may be printed before the commit: call Resume
// when the machine runs. While paused it also refuses input, which would miss the
// saved state.
//
// # Input
//
// Feed takes what the receive FIFO has room for, so the host sees the guest's
// pace and nothing overruns; only loopback can overrun. The character timeout
// has no clock: bytes below the trigger level interrupt at once as a timeout.
//
// # Interrupts
//
// The line is high exactly while the interrupt identification register shows a
// cause. THRE becomes pending when IER enables it with the transmitter empty, when
// the transmitter gets room, and after each byte that still found room; it ends
// when IIR shows it to a reader, or a byte is written. A write with THRE pending
// therefore makes a low pulse, which edge-triggered guests that never read IIR need.
// The OUT2 gate of the PC is left out, as in QEMU: guests made there forget it.
//
// # Not modelled
//
// Baud rates (bytes take no time), parity and framing errors, breaks, DMA, and
// modem lines beyond "connected" (CTS, DSR and DCD high).
package serial
