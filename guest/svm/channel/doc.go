// Package channel is the wire between the host and the agent in the emulated
// machine: frames on a virtio-serial port.
//
// # Sequence
//
//	agent -> host   Hello                    once, when /dev/kvm is ready or will not be
//	host  -> agent  Run                      one command at a time
//	agent -> host   Output*, then Exit
//	host  -> agent  Kill                     any time; ignored if nothing runs
//	host  -> agent  PowerOff                 the agent powers the machine off
//
// The end of the stream also powers the machine off, so that an emulator never
// outlives the process that wanted it.
//
// # Frame
//
//	uint32 little endian   length of the payload, at most MaxPayloadBytes
//	uint8                  kind; 0 is invalid
//	payload                JSON for Hello, Run and Exit; raw bytes for Output; else empty
//
// There is no version: both ends are built from the same tree in one run.
package channel
