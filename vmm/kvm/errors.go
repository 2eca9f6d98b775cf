package kvm

import "errors"

// Errors that a caller tells apart.
var (
	// ErrNoDevice: the host has no /dev/kvm.
	ErrNoDevice = errors.New("no /dev/kvm: load the kvm module (kvm-intel, kvm-amd or kvm-pvm), or enable virtualization in the firmware")
	// ErrPermission: /dev/kvm is there but this user can't open it.
	ErrPermission = errors.New("no permission for /dev/kvm: join its group (usually `sudo usermod -aG kvm $USER`, then log in again)")
	// ErrMissing: this KVM lacks something on the list of required capabilities.
	ErrMissing = errors.New("this host's KVM lacks")
	// ErrUnfinishedExit: the last port or MMIO access has been answered by user space
	// but not completed by the kernel, so the registers lie inside an instruction.
	ErrUnfinishedExit = errors.New("the last exit is not completed: enter KVM_RUN once more with immediate_exit set")
	// ErrBadState: a saved state can't be meant for this KVM, or is damaged.
	ErrBadState = errors.New("bad saved KVM state")
	// ErrTSCFrequency: the guest's TSC frequency can't be had on this host.
	ErrTSCFrequency = errors.New("this host can't run the guest's TSC at its frequency")
	// ErrMSRRefused: KVM refused the value of an MSR; the error names it.
	ErrMSRRefused = errors.New("KVM refused MSR")
	// ErrNoRing: the VM was made with the dirty log.
	ErrNoRing = errors.New("the VM has no dirty ring")
)
