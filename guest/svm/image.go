package svm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sirupsen/logrus"

	"github.com/fineline-vmm/fineline/images/linux"
)

// agentPackage is /init of the machine.
const agentPackage = "github.com/fineline-vmm/fineline/guest/svm/agent"

// guestDir is where the Linux guest's files are inside the machine.
const guestDir = "/linux"

// guestCmdline are kernel parameters for Linux guests inside the machine. QEMU
// 7.2 does not give XSETBV in a nested guest to KVM, so XCR0 and what KVM
// answers in CPUID leaf 0xD disagree; Linux then warns and drops XSAVE itself.
const guestCmdline = "noxsave"

// image is what a machine boots from.
type image struct {
	kernel    string
	initramfs string
}

// buildImage writes the machine's initramfs into dir: agent, busybox, KVM, the
// Linux guest for Fineline, and what payload adds.
func buildImage(ctx context.Context, dir string, payload func(*linux.Tree) error) (image, error) {
	kernel, err := linux.Kernel(ctx)
	if err != nil {
		return image{}, err
	}
	tree := linux.NewTree()
	agent := filepath.Join(dir, "agent")
	if err := linux.BuildStatic(ctx, agent, agentPackage); err != nil {
		return image{}, err
	}
	tree.File("init", agent, 0o755)
	if err := linux.AddBusybox(ctx, tree); err != nil {
		return image{}, err
	}
	modules, err := kernel.Modules(ctx, Modules...)
	if err != nil {
		return image{}, err
	}
	for i, m := range modules {
		tree.Bytes(fmt.Sprintf("modules/%03d-%s.ko", i, m.Name), m.ELF, 0o644)
	}
	guest := filepath.Join(dir, "linux")
	if err := linux.WriteGuest(ctx, guest); err != nil {
		return image{}, err
	}
	if err := linux.WriteRedisGuest(ctx, guest); err != nil {
		logrus.Warnf("svm: no Linux guest with redis-server, its test will skip: %v", err)
	}
	tree.Copy(guestDir, guest)
	if err := payload(tree); err != nil {
		return image{}, err
	}
	out := image{kernel: kernel.Vmlinux, initramfs: filepath.Join(dir, "machine.cpio")}
	if err := tree.WriteFile(out.initramfs); err != nil {
		return image{}, err
	}
	if err := os.RemoveAll(guest); err != nil {
		return image{}, err
	}
	return out, nil
}
