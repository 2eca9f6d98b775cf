// Package vmm is a running machine: guest memory, vCPUs and devices put
// together, started, paused, saved and restored.
//
// # Threads
//
// Each vCPU is one goroutine locked to one OS thread, which alone calls KVM_RUN (design law 10).
// A vCPU is parked or running. Parked, it may be lent: another goroutine gets and
// sets its registers, and it stays parked until then. Running, it calls KVM_RUN, hands each exit
// to handleExit as a value, and looks for wishes only when KVM_RUN returns EINTR.
//
// A kick sets the wish first, then immediate_exit, then sends SIGURG with
// tgkill. The vCPU clears immediate_exit first and reads the wish second, so a
// wish that arrives at any instant is seen: either it is read now, or
// immediate_exit is set again and the next KVM_RUN returns at once. Since wishes
// are looked for only after KVM_RUN has returned EINTR, a port or MMIO access
// that user space has answered is always completed in the kernel before the
// vCPU parks, and the saved registers lie between two instructions.
//
// # Holds, turns, and what exits of RAM
//
// A vCPU that is held stays parked whatever is wanted of it; holds add up. freeze holds all of
// them for a function, whatever the machine's status is and without Machine.mu, so that a device may need it while
// a pause waits for that device: slots of RAM change so (lines.go). While some RAM exits, turns.go
// holds all vCPUs but one. A vCPU parks for a hold where it parks for a wish: after EINTR, or before
// an instruction that KVM could not begin; always between two instructions.
//
// A throttle holds all vCPUs for a share of the time (throttle.go), beside whoever else holds them.
//
// Accesses to RAM that exit go to package coherence/track, which knows why. An instruction that KVM cannot emulate
// there is done by package vector, or the pages that it touches are given back to the guest (emulate.go), by a
// goroutine beside the vCPU, which is held meanwhile: that a page is watched never ends a guest.
//
// # Missing memory
//
// Where memory is missing (memory.Demand), a vCPU waits for it in KVM_RUN, or in an accessor during an exit. Pause holds
// arrivals back and takes such a vCPU for parked: it completes no instruction before Resume. It is not kicked, since a wait inside an
// access of the kernel's own would spin on the pending signal. Save, Restore and changes of slots need it out of KVM_RUN: they kick it, and fail with
// memory.ErrMissing if it does not come out. A second Pause, once nothing is missing, has it finish and park. The state of a vCPU that was interrupted
// in its wait lies between two instructions, as ever; it waits again after Resume. Devices never wait inside a step (devices/fpga). A
// slot that changes while the machine runs waits for vCPUs that wait; KVM would, too, for they hold its SRCU lock. A
// reset clears memory, so it ends all waiting first. At Close the guest mapping is taken away, which ends every KVM_RUN.
//
// Restore comes before Demand: KVM reads guest memory for some of the state, on a vCPU's thread, when nobody serves pages yet.
//
// # The supervisor
//
// What ends or restarts the machine (power-off, reset, debug exit, an exit
// nobody knows) is posted by the vCPU that met it to one supervisor goroutine,
// and that vCPU parks itself. The supervisor takes Machine.mu like every other
// caller, so a reset can't run into a pause or a save.
//
// # Saved state
//
// State is one typed struct: every vCPU, the in-kernel devices, and one field
// for each of our devices in deviceStates, the one list of them, which a test compares
// with the board. Devices travel as JSON, what KVM holds in its own binary form, inside an envelope
// with magic, version, checksum and a size cap (design law 9), and no list stands for more than its
// bytes. What can be known to fail at Restore is in the description, which a destination
// judges before the source pauses; and a destination restores its own power-on state once
// beforehand, as a rehearsal, since code and caches that are cold cost more than the work itself. Restore takes also a
// paused machine whose guest has run here: a guest goes back to an earlier point so. A reset restores what KVM held before the
// first instruction, resets our devices, clears memory and loads the kernel again.
//
// # Lock order
//
// Machine.mu (a throttle's and the turns' goroutines take vcpu.mu only); the FPGA's control and turn; track.Engine.mu; the switch of slots (lines.go); vcpu.mu; track's exact.mu,
// memory's Demand and hub, kvm's slotsMu, ring and VM.mu; then a device's own mu. A vCPU thread takes none before
// exact.mu but its own. Nothing is called with a device's mu held except its interrupt line and its bus.
//
// # Rejected
//
// A goroutine per vCPU without LockOSThread (KVM binds a vCPU to a thread by
// cost and by preemption notifiers), signals masked by KVM_SET_SIGNAL_MASK (not
// needed with immediate_exit), polling a flag in the exit loop (a halted or
// spinning guest never exits), and handing raw kvm_run pages to devices (they
// get an offset and a byte slice).
package vmm
