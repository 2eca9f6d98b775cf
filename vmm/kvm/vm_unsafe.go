package kvm

import (
	"unsafe"

	gokvm "github.com/bobuhiro11/gokvm/kvm"
)

func (v *VM) setIdentityMap(addr uint64) error {
	_, err := ioctl(v.fd, reqSetIdentityMapAddr, uintptr(unsafe.Pointer(&addr)))
	return err
}

func (v *VM) createPIT() error {
	const speakerDummy = 1 // KVM_PIT_SPEAKER_DUMMY: port 0x61 in the kernel
	config := pitConfig{flags: speakerDummy}
	_, err := ioctl(v.fd, reqCreatePIT2, uintptr(unsafe.Pointer(&config)))
	return err
}

func (v *VM) routeLegacyIRQs() error {
	_, err := ioctl(v.fd, reqSetGSIRouting, uintptr(unsafe.Pointer(legacyRoutes())))
	return err
}

// enable switches a capability of the VM on.
func (v *VM) enable(c gokvm.Capability, arg uint64) error {
	request := enableCap{capability: uint32(c), args: [4]uint64{arg}}
	r := reqEnableCap
	r.name += "(" + capabilityName(c) + ")"
	_, err := ioctl(v.fd, r, uintptr(unsafe.Pointer(&request)))
	return err
}

// SetIRQLine sets the level of one line (0..23). Safe for concurrent use.
func (v *VM) SetIRQLine(gsi uint32, high bool) error {
	line := irqLevel{irq: gsi}
	if high {
		line.level = 1
	}
	_, err := ioctl(v.fd, reqIRQLine, uintptr(unsafe.Pointer(&line)))
	return err
}

// SignalMSI delivers one message-signalled interrupt. A guest that has masked or
// not set up its LAPIC gets none; that is not an error. Safe for concurrent use.
func (v *VM) SignalMSI(addr uint64, data uint32) error {
	m := msi{addressLo: uint32(addr), addressHi: uint32(addr >> 32), data: data}
	_, err := ioctl(v.fd, reqSignalMSI, uintptr(unsafe.Pointer(&m)))
	return err
}
