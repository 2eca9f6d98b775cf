package linux

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Names of the files that WriteGuest writes and tests look for in the
// directory named by the environment variable DirEnv.
const (
	DirEnv        = "FINELINE_LINUX_DIR"
	VmlinuzName   = "vmlinuz"
	VmlinuxName   = "vmlinux"
	InitramfsName = "initramfs.cpio"
	// RedisInitramfsName is beside them when WriteRedisGuest was called, too.
	RedisInitramfsName = "initramfs-redis.cpio"
)

// CmdlineEnv names the environment variable with kernel parameters that Linux
// guests need because of the host's CPU; tests append its value.
const CmdlineEnv = "FINELINE_LINUX_CMDLINE"

// guestInit is /init of the Linux guest.
//
//go:embed guest-init.sh
var guestInit []byte

// module is this module's path: programs for the guest are built from it.
const module = "github.com/fineline-vmm/fineline"

// WriteGuest writes the Linux guest that Fineline's tests boot into dir, which
// is made if needed: VmlinuzName, VmlinuxName, InitramfsName (see the package
// comment). It must run inside this module, whose programs it compiles.
func WriteGuest(ctx context.Context, dir string) error {
	kernel, err := Kernel(ctx)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "fineline-guest-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)

	tree := NewTree()
	if err := addGuest(ctx, tree, scratch, "images/linux/memcheck"); err != nil {
		return err
	}
	if err := replace(filepath.Join(dir, InitramfsName), tree.WriteFile); err != nil {
		return err
	}
	for name, from := range map[string]string{VmlinuzName: kernel.Vmlinuz, VmlinuxName: kernel.Vmlinux} {
		err := replace(filepath.Join(dir, name), func(tmp string) error { return copyFile(tmp, from) })
		if err != nil {
			return err
		}
	}
	return nil
}

// WriteRedisGuest writes RedisInitramfsName into dir: the Linux guest with Debian's redis-server, a load for
// it, and fineline-guest.
func WriteRedisGuest(ctx context.Context, dir string) error {
	root, err := Packages(ctx, "redis-server")
	if err != nil {
		return fmt.Errorf("get Debian's redis-server: %w", err)
	}
	scratch, err := os.MkdirTemp("", "fineline-guest-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	tree := NewTree()
	if err := addGuest(ctx, tree, scratch, "images/linux/redisload", "cmd/fineline-guest", "guest/track/example"); err != nil {
		return err
	}
	tree.AddDynamic(root, "usr/bin/redis-server")
	tree.Bytes("etc/passwd", []byte("root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"), 0o644)
	return replace(filepath.Join(dir, RedisInitramfsName), tree.WriteFile)
}

// addGuest adds busybox, /init and programs of this module, which it compiles into scratch.
func addGuest(ctx context.Context, tree *Tree, scratch string, programs ...string) error {
	if err := AddBusybox(ctx, tree); err != nil {
		return err
	}
	tree.Bytes("init", guestInit, 0o755)
	for _, program := range programs {
		name := filepath.Base(program)
		out := filepath.Join(scratch, name)
		if err := BuildStatic(ctx, out, module+"/"+program); err != nil {
			return err
		}
		tree.File("bin/"+name, out, 0o755)
	}
	return nil
}

// BuildStatic compiles a Go program that runs with no file beside it. Debug
// data is left out: every byte must be copied into an emulated machine.
func BuildStatic(ctx context.Context, out, pkg string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, stderr.String())
	}
	return nil
}

// AddBusybox adds the host's busybox with all its applets to t.
func AddBusybox(ctx context.Context, t *Tree) error {
	path, err := exec.LookPath("busybox")
	if err == nil {
		err = staticELF(path)
	}
	if err != nil {
		return fmt.Errorf("busybox (install the package busybox-static): %w", err)
	}
	applets, err := output(ctx, path, "--list")
	if err != nil {
		return err
	}
	t.Busybox(path, strings.Fields(string(applets)))
	return nil
}

// replace lets write make a temporary file and then renames it, so that a
// reader of name sees the old content or the new one.
func replace(name string, write func(tmp string) error) error {
	tmp := fmt.Sprintf("%s.tmp%d", name, os.Getpid())
	if err := write(tmp); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return os.Rename(tmp, name)
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
