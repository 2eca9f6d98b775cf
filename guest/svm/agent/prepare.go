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
	note(keepSVMOn())
	return problems
}

// keepSVMOn creates a VM that lives as long as the machine. KVM switches SVM on in
// every CPU with the first VM and off with the last; where tests do that many
// times a second, CPUs of QEMU 7.2 fall into an endless loop: once in five whole
// runs also with no process on CPU 0.
func keepSVMOn() error {
	const createVM = 0xae01 // KVM_CREATE_VM
	dev, err := unix.Open("/dev/kvm", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/kvm: %w", err)
	}
	vm, err := unix.IoctlRetInt(dev, createVM)
	if err != nil {
		return fmt.Errorf("KVM_CREATE_VM: %w", err)
	}
	unix.CloseOnExec(vm)
	return nil // neither descriptor is ever closed
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
