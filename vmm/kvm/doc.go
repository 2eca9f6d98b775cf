// Package kvm is the hypervisor seen from Go: every KVM ioctl and every mirrored
// kernel struct of Fineline is here, and nothing above knows one. It offers a host
// (System), virtual machines (VM), virtual processors (VCPU), their exits as values
// (Exit), their saved state, and dirty tracking as a memory.DirtySource. It needs
// Linux 5.17 or newer; capability.go is the one list of what for.
//
// # gokvm, and where not
//
// Structs, request numbers and calls come from github.com/bobuhiro11/gokvm where they are right.
// Its Ioctl takes a plain uintptr without keeping the pointer's target in place:
// a struct on a goroutine's stack may move, and the kernel then writes to the old
// stack. So what goes through gokvm lies in a scratch field of a VM or VCPU, on the
// heap; a binding that allocates the struct itself is not used. Own requests go
// through ioctl, which is marked uintptrescapes. requests_unsafe.go says at each
// own request what is wrong with gokvm's. Structs that gokvm and we mirror have
// their sizes checked at compile time.
//
// # Threads
//
// Run belongs to one locked OS thread. The other methods of a VCPU may be called on any, one at a time
// and not beside Run, but for SetImmediateExit, which may. Run is one KVM_RUN without a retry, so a kick works: SetImmediateExit(true),
// then tgkill(SIGURG). Whether the signal arrives before, in or after KVM_RUN, one of
// the two ends it. The thread clears immediate exit before it looks for what was
// wanted. Signals of the Go runtime give the same EINTR, so EINTR is a hint, no message.
//
// A port or MMIO access is complete only when KVM_RUN is entered again. State and
// Restore refuse with ErrUnfinishedExit before that.
//
// # Saved state and its order
//
// Pause all vCPUs. Save all vCPUs, then the VM. Restore the VM, then all vCPUs, then
// NotifyPaused on each. The VM first because an IOAPIC delivers what is pending at
// the moment it is set, and the LAPICs set later hold exactly what was saved; and
// because the TSCs follow its clock. The order inside a vCPU is argued at State and
// Restore. The saved forms are the kernel's structs as they lie in memory, which are
// stable interface; a test pins their bytes. JSON was rejected: to parse the text of one vCPU took
// longer than all ioctls that restore it, and a migrating guest waits for both.
//
// On software KVM every ioctl of a vCPU takes some 5 µs whatever it does, so what counts is their number: ten to
// save, eleven to restore. What does not change is asked once (TSC frequency), what is the same for
// all vCPUs is asked of one (TSC shift), and MSRs go in one call.
//
// Every MSR that KVM lists and can read is saved, and the memory type ranges, which it
// does not list. Restoring, one that KVM refuses is an error, unless it has the value
// already. Not saved: nested guests (SupportedCPUID hides VMX and SVM), and
// machine-check banks (KVM fills them only when asked to inject an error).
//
// # Time
//
// A guest's clocks stand still while it is saved and go on from there: kvmclock and
// TSC both, so they agree. kvmclock is set without KVM_CLOCK_REALTIME, which would
// add the time between save and restore by the hosts' wall clocks: that needs them
// to agree, and a snapshot of last week would wake up with all its timeouts expired.
// A guest that wants wall-clock time asks for it (RTC, NTP), as after a suspend.
//
// The TSC is restored by its offset (KVM_VCPU_TSC_OFFSET) and not by its MSR. KVM guesses
// from MSR writes that are less than a second apart whether TSCs were meant to be in
// step, and kernels before 6.7 take the value of a guest younger than a second for an
// attempt to be in step with the new VM, and turn it back. With offsets there
// is no guess: the first vCPU restored after VM.Restore fixes one shift for the VM,
//
//	shift = (value - offset) when saved - (value - offset) now
//
// and every vCPU gets its saved offset plus shift, so offsets that were equal are equal.
// value - offset is the host's TSC scaled to the guest's frequency: no host TSC is
// read and scaling needs no case of its own. A TSC never goes back if all vCPUs were paused
// before the first was saved. A guest's frequency that the host can't give is
// refused (ErrTSCFrequency).
//
// Software KVM accepts an offset and ignores it: its guests read the host's TSC. On the
// same host that goes forward anyway; between hosts it may not, and Restore logs it.
//
// # Dirty pages
//
// Log or ring, chosen for a VM: with a ring KVM gives no log. Log: manual protection, so
// reading and re-arming are two steps and only pages that were dirty are protected again.
// KVM_DIRTY_LOG_INITIALLY_SET is off, since the first Collect would report every
// page. To read takes 10 µs for 1 GiB, to re-arm 25 ns a page on software KVM; Peek reads only, for a
// guest that stands still and may go elsewhere. Ring: entries taken early, because a ring was full, wait for the next Collect.
// Neither knows stores of this process: memory.Tracker joins those. Pages that the
// guest touches first, even only to read, may be reported, since KVM maps them
// writable at once; pages the CPU stores to by itself (accessed and dirty bits in page tables)
// are reported like others.
//
// On software KVM this process's stores to page tables in use are not seen by
// the guest at all: see RemapMemory.
//
// # Rejected
//
// KVM_SET_SIGNAL_MASK (immediate exit does it without a mask per vCPU); KVM_CAP_SYNC_REGS
// (saves a call on a path that is not hot); the split irqchip (software KVM and
// Linux guests work best with all of it in the kernel, and nothing here needs to see
// interrupts); a vCPU reset ioctl (restoring the state of power-on is the same and
// tests Restore); reading exits field by field by the caller (tests would need
// /dev/kvm).
package kvm
