package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// moduleDir holds the modules, named so that sorting gives their load order.
const moduleDir = "/modules"

// prepare makes the machine usable. It goes on after errors: what is missing
// is told to the host, whose tests then say so better than a dead machine.
func prepare() error {
	var problems error
	note := func(err error) { problems = errors.Join(problems, err) }
	for _, m := range []struct{ kind, dir string }{
		{"devtmpfs", "/dev"},
		{"proc", "/proc"},
		{"sysfs", "/sys"},
		{"tmpfs", "/tmp"},
	} {
		note(mount(m.kind, m.dir))
	}
	note(os.Mkdir("/dev/shm", 0o1777))
	note(mount("tmpfs", "/dev/shm"))
	note(loopbackUp())
	note(loadModules(moduleDir))
	note(holdVM())
	return problems
}

// holdVM creates a VM with an interrupt controller and one processor that lives as long as the machine: two things that KVM
// does to running code and CPUs with the first VM, and undoes with the last, then happen once. QEMU 7.2 survives them most times only.
//
//   - SVM is switched on in every CPU, and off. Where tests do that many times a second, CPUs fall into an endless loop: once
//     in five whole runs also with no process on CPU 0.
//   - apic_sw_disabled counts processors whose APIC is not enabled yet, as this one's never is; between 0 and 1 the kernel
//     patches __apic_accept_irq, in which both CPUs then hung for good: twice in 24 migrations of Linux.
func holdVM() error {
	const ( // linux/kvm.h
		createVM      = 0xae01
		createIRQChip = 0xae60
		createVCPU    = 0xae41
	)
	dev, err := unix.Open("/dev/kvm", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/kvm: %w", err)
	}
	vm, err := unix.IoctlRetInt(dev, createVM)
	if err != nil {
		return fmt.Errorf("KVM_CREATE_VM: %w", err)
	}
	unix.CloseOnExec(vm)
	if err := unix.IoctlSetInt(vm, createIRQChip, 0); err != nil {
		return fmt.Errorf("KVM_CREATE_IRQCHIP: %w", err)
	}
	vcpu, err := unix.IoctlRetInt(vm, createVCPU)
	if err != nil {
		return fmt.Errorf("KVM_CREATE_VCPU: %w", err)
	}
	unix.CloseOnExec(vcpu)
	return nil // no descriptor is ever closed
}

func mount(kind, dir string) error {
	if err := unix.Mount(kind, dir, kind, 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", dir, err)
	}
	return nil
}

// loopbackUp lets tests use 127.0.0.1.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	ifr.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	return nil
}

func loadModules(dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var names []string
	for _, f := range files {
		names = append(names, f.Name())
	}
	slices.Sort(names)
	var failed []error
	for _, name := range names {
		image, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			err = unix.InitModule(image, "")
		}
		if err != nil && !errors.Is(err, unix.EEXIST) {
			failed = append(failed, fmt.Errorf("load module %s: %w", name, err))
		}
	}
	return errors.Join(failed...)
}
