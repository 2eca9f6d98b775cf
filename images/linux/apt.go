package linux

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// metaPackage always depends on the current kernel of the Debian release.
const metaPackage = "linux-image-cloud-amd64"

// debPackage is one concrete package of the archive.
type debPackage struct {
	name    string // linux-image-6.1.0-1-cloud-amd64
	version string // 6.1.4-1
}

// dirName is the package's directory in the cache. Versions may hold ':'.
func (p debPackage) dirName() string {
	return strings.ReplaceAll(p.name+"_"+p.version, ":", "%3a")
}

// release is what `uname -r` says in that kernel.
func (p debPackage) release() string {
	return strings.TrimPrefix(p.name, "linux-image-")
}

// resolveKernel asks apt which kernel is current.
func resolveKernel(ctx context.Context) (debPackage, error) {
	out, err := output(ctx, "apt-cache", "depends", metaPackage)
	if err != nil {
		return debPackage{}, err
	}
	name, ok := parseDepends(string(out))
	if !ok {
		return debPackage{}, fmt.Errorf("apt knows no %s: run `apt-get update` as root on a Debian system", metaPackage)
	}
	out, err = output(ctx, "apt-cache", "show", "--no-all-versions", name)
	if err != nil {
		return debPackage{}, err
	}
	version, ok := parseVersion(string(out))
	if !ok {
		return debPackage{}, fmt.Errorf("apt knows no version of %s", name)
	}
	return debPackage{name: name, version: version}, nil
}

// parseDepends finds the kernel among the dependencies of the metapackage, in
// the output of `apt-cache depends`.
func parseDepends(out string) (string, bool) {
	for line := range strings.Lines(out) {
		name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: ")
		if ok && strings.HasPrefix(name, "linux-image-") && validName(name) {
			return name, true
		}
	}
	return "", false
}

// parseVersion finds the version in the output of `apt-cache show`.
func parseVersion(out string) (string, bool) {
	for line := range strings.Lines(out) {
		v, ok := strings.CutPrefix(strings.TrimSpace(line), "Version: ")
		if ok && validName(v) {
			return v, true
		}
	}
	return "", false
}

// validName keeps apt's answers safe to use in file names and arguments
// (Debian Policy 5.6.1 and 5.6.12 allow no other characters).
func validName(s string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	return s != "" && s[0] != '-' && strings.Trim(s, letters+"0123456789.+-~:") == ""
}

// downloadPackage fetches the package into dir, checked by apt's signatures,
// and unpacks it below dir/root.
func downloadPackage(ctx context.Context, p debPackage, dir string) (root string, err error) {
	cmd := exec.CommandContext(ctx, "apt-get", "download", p.name+"="+p.version)
	cmd.Dir = dir
	if _, err := outputOf(cmd); err != nil {
		return "", err
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return "", err
	}
	if len(debs) != 1 {
		return "", fmt.Errorf("apt-get download of %s left %d packages, not 1", p.name, len(debs))
	}
	root = filepath.Join(dir, "root")
	return root, runQuiet(ctx, "dpkg-deb", "-x", debs[0], root)
}
