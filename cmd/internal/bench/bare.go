package bench

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/images"
	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/vmm"
	"github.com/fineline-vmm/fineline/vmm/boot"
	"github.com/fineline-vmm/fineline/vmm/kvm"
)

// bareExit runs the guest with nothing around it: KVM_RUN and the least answers that the
// guest needs, a serial port that is always ready. It returns the TSC ticks of one exit and
// the TSC's frequency.
func bareExit(cmdline string) (ticks float64, khz uint64, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	sys, err := kvm.Open()
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, sys.Close()) }()
	vm, err := sys.CreateVM(kvm.VMOptions{})
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, vm.Close()) }()
	ram, err := memory.New([]memory.Region{{SizeBytes: exitsGuestBytes}}, memory.Options{})
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, ram.Close()) }()
	if err := vm.MapMemory(ram); err != nil {
		return 0, 0, err
	}
	cpu, err := vm.CreateVCPU(0)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, cpu.Close()) }()
	if err := bareBoot(sys, ram, cpu, cmdline); err != nil {
		return 0, 0, err
	}
	state, err := cpu.State()
	if err != nil {
		return 0, 0, err
	}
	serial, err := bareLoop(cpu)
	if err != nil {
		return 0, 0, err
	}
	ticks, err = loopTicks(serial)
	return ticks, state.TSC.KHz, err
}

// bareBoot puts the guest where the machine would put it.
func bareBoot(sys *kvm.System, ram *memory.Guest, cpu *kvm.VCPU, cmdline string) error {
	cpuid, err := sys.SupportedCPUID()
	if err != nil {
		return err
	}
	if err := cpu.SetCPUID(cpuid); err != nil {
		return err
	}
	image, _ := images.Builtin("hello")
	entry, err := boot.Load(ram, boot.Source{
		Kernel: bytes.NewReader(image), KernelSizeBytes: int64(len(image)), Cmdline: cmdline,
	}, boot.Params{E820: []boot.E820Entry{{SizeBytes: exitsGuestBytes, Type: boot.E820RAM}}})
	if err != nil {
		return err
	}
	return vmm.EnterKernel(cpu, entry)
}

// bareLoop is the limit that the machine is held against.
func bareLoop(cpu *kvm.VCPU) (serial string, err error) {
	const (
		com1, lineStatus, transmitterEmpty = 0x3f8, 0x3fd, 0x60
		powerControl                       = 0x604
	)
	var out []byte
	for {
		if err := cpu.Run(); err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return "", err
		}
		e := cpu.Exit()
		switch {
		case e.Reason == kvm.ExitMMIO:
		case e.Reason != kvm.ExitIO:
			return "", fmt.Errorf("bare loop: %s", e)
		case e.IO.Port == com1 && e.IO.Write:
			out = append(out, e.IO.Data...)
		case e.IO.Port == lineStatus:
			e.IO.Data[0] = transmitterEmpty
		case e.IO.Port == powerControl:
			return string(out), nil
		}
	}
}
