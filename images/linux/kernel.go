package linux

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sirupsen/logrus"
)

// KernelFiles is one kernel in the cache. The files are shared by all
// processes of the user: read them, never write them.
type KernelFiles struct {
	Release   string // as `uname -r` says, 6.1.0-1-cloud-amd64
	Vmlinuz   string // path of the bzImage
	Vmlinux   string // path of the uncompressed ELF, which has a PVH note
	ModuleDir string // directory with the .ko files below it
}

// Kernel returns Debian's current cloud kernel, fetched if it is not in the
// cache. Without a network the newest cached kernel serves.
func Kernel(ctx context.Context) (*KernelFiles, error) {
	cache, err := CacheDir()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(cache, "kernel")
	k, err := fetchKernel(ctx, dir)
	if err == nil {
		return k, nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	cached, ok := newestCached(dir)
	if !ok {
		return nil, fmt.Errorf("get Debian's %s: %w", metaPackage, err)
	}
	logrus.Warnf("using the cached kernel %s: %v", cached.Release, err)
	return cached, nil
}

func fetchKernel(ctx context.Context, dir string) (*KernelFiles, error) {
	k, err := publishKernel(ctx, dir)
	if err == nil || ctx.Err() != nil || !canInstall() {
		return k, err
	}
	// Fresh containers have no package lists, and old lists name packages that
	// Debian has since replaced: refresh once.
	if err := runQuiet(ctx, "apt-get", "update"); err != nil {
		return nil, fmt.Errorf("refresh the package lists: %w", err)
	}
	return publishKernel(ctx, dir)
}

func publishKernel(ctx context.Context, dir string) (*KernelFiles, error) {
	p, err := resolveKernel(ctx)
	if err != nil {
		return nil, err
	}
	final := filepath.Join(dir, p.dirName())
	if err := publishDir(final, func(tmp string) error { return unpackKernel(ctx, p, tmp) }); err != nil {
		return nil, err
	}
	return kernelIn(final), nil
}

// unpackKernel fills dir with vmlinuz, vmlinux, modules and release. What the
// package holds beside them stays in a scratch directory, removed at the end.
func unpackKernel(ctx context.Context, p debPackage, dir string) error {
	scratch := filepath.Join(dir, "scratch")
	if err := os.Mkdir(scratch, 0o755); err != nil {
		return err
	}
	root, err := downloadPackage(ctx, p, scratch)
	if err != nil {
		return err
	}
	image, err := os.ReadFile(filepath.Join(root, "boot", "vmlinuz-"+p.release()))
	if err != nil {
		return err
	}
	vmlinux, err := ExtractVmlinux(ctx, image)
	if err != nil {
		return fmt.Errorf("vmlinux of %s: %w", p.name, err)
	}
	k := kernelIn(dir)
	if err := os.WriteFile(k.Vmlinuz, image, 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(k.Vmlinux, vmlinux, 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "release"), []byte(p.release()), 0o644); err != nil {
		return err
	}
	modules, err := modulesRoot(root, p.release())
	if err != nil {
		return err
	}
	if err := os.Rename(modules, k.ModuleDir); err != nil {
		return err
	}
	return os.RemoveAll(scratch)
}

// modulesRoot finds the modules: below /lib until Debian 12, /usr/lib after.
func modulesRoot(root, release string) (string, error) {
	for _, lib := range []string{"lib", "usr/lib"} {
		dir := filepath.Join(root, lib, "modules", release)
		if exists(dir) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("the package has no modules for %s", release)
}

func kernelIn(dir string) *KernelFiles {
	release, err := os.ReadFile(filepath.Join(dir, "release"))
	if err != nil {
		release = []byte("unknown")
	}
	return &KernelFiles{
		Release:   string(release),
		Vmlinuz:   filepath.Join(dir, "vmlinuz"),
		Vmlinux:   filepath.Join(dir, "vmlinux"),
		ModuleDir: filepath.Join(dir, "modules"),
	}
}

// newestCached returns the kernel that was put into the cache last.
func newestCached(dir string) (*KernelFiles, bool) {
	found, err := filepath.Glob(filepath.Join(dir, "linux-image-*"))
	if err != nil {
		return nil, false
	}
	var newest string
	var newestInfo os.FileInfo
	for _, d := range found {
		info, err := os.Stat(d)
		if err != nil {
			continue
		}
		if newestInfo == nil || info.ModTime().After(newestInfo.ModTime()) {
			newest, newestInfo = d, info
		}
	}
	if newest == "" {
		return nil, false
	}
	return kernelIn(newest), true
}
