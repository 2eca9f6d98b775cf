package linux

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sirupsen/logrus"
)

// Packages returns a directory with the content of a Debian package and of the shared libraries that it
// depends on, fetched if it is not in the cache. Without a network the newest cached version serves. Nothing is
// installed and no maintainer script runs.
func Packages(ctx context.Context, name string) (root string, err error) {
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "package")
	root, err = publishPackages(ctx, dir, name)
	if err != nil && ctx.Err() == nil && canInstall() && runQuiet(ctx, "apt-get", "update") == nil {
		root, err = publishPackages(ctx, dir, name) // the lists were absent or old
	}
	if err == nil || ctx.Err() != nil {
		return root, err
	}
	cached, globErr := filepath.Glob(filepath.Join(dir, name+"_*"))
	if globErr != nil || len(cached) == 0 {
		return "", err
	}
	logrus.Warnf("using the cached package %s: %v", filepath.Base(cached[len(cached)-1]), err)
	return cached[len(cached)-1], nil
}

func publishPackages(ctx context.Context, dir, name string) (string, error) {
	p, err := resolvePackage(ctx, name)
	if err != nil {
		return "", err
	}
	final := filepath.Join(dir, p.dirName())
	return final, publishDir(final, func(tmp string) error { return unpackPackages(ctx, p, tmp) })
}

func resolvePackage(ctx context.Context, name string) (debPackage, error) {
	out, err := output(ctx, "apt-cache", "show", "--no-all-versions", name)
	if err != nil {
		return debPackage{}, err
	}
	version, ok := parseVersion(string(out))
	if !ok {
		return debPackage{}, fmt.Errorf("apt knows no version of %s", name)
	}
	return debPackage{name: name, version: version}, nil
}

// unpackPackages fetches p and its libraries into dir.
func unpackPackages(ctx context.Context, p debPackage, dir string) error {
	names, err := withLibraries(ctx, p.name)
	if err != nil {
		return err
	}
	scratch := filepath.Join(dir, "scratch")
	if err := os.Mkdir(scratch, 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"download"}, names...)...)
	cmd.Dir = scratch
	if _, err := outputOf(cmd); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(scratch, "*.deb"))
	if err != nil {
		return err
	}
	for _, deb := range debs {
		if err := runQuiet(ctx, "dpkg-deb", "-x", deb, dir); err != nil {
			return err
		}
	}
	return os.RemoveAll(scratch)
}

// withLibraries is the package, the libraries it depends on, and packages of its own stem (redis-tools). What
// it needs for its installation (adduser, init scripts) is of no use without a package manager.
func withLibraries(ctx context.Context, name string) ([]string, error) {
	stem, _, _ := strings.Cut(name, "-")
	all := []string{name}
	for i := 0; i < len(all); i++ {
		out, err := output(ctx, "apt-cache", "depends", all[i])
		if err != nil {
			return nil, err
		}
		for _, d := range parseAllDepends(string(out)) {
			if (strings.HasPrefix(d, "lib") || strings.HasPrefix(d, stem+"-")) && !slices.Contains(all, d) {
				all = append(all, d)
			}
		}
	}
	return all, nil
}

// parseAllDepends finds the dependencies in the output of `apt-cache depends`, the first of alternatives.
func parseAllDepends(out string) []string {
	var all []string
	for line := range strings.Lines(out) {
		name, ok := strings.CutPrefix(line, "  Depends: ")
		if name = strings.TrimSpace(name); ok && validName(name) {
			all = append(all, name)
		}
	}
	return all
}

// libraryDirs is where Debian's dynamic linker looks, below a root.
var libraryDirs = []string{"usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib", "lib"}

// AddDynamic adds a program of an unpacked root as bin/NAME with its dynamic linker and all libraries it needs.
func (t *Tree) AddDynamic(root, program string) {
	t.err = errors.Join(t.err, t.addDynamic(root, program))
}

func (t *Tree) addDynamic(root, program string) error {
	host, err := within(root, program)
	if err != nil {
		return err
	}
	t.File(path.Join("bin", path.Base(program)), host, 0o755)
	todo, seen := []string{host}, map[string]bool{}
	for len(todo) > 0 {
		file := todo[0]
		todo = todo[1:]
		interpreter, needed, err := dynamic(file)
		if err != nil {
			return err
		}
		if interpreter != "" && !seen[interpreter] {
			seen[interpreter] = true
			linker, err := within(root, interpreter)
			if err != nil {
				// /lib64 is a link of the package usrmerge in some releases.
				linker, err = findLibrary(root, path.Base(interpreter))
			}
			if err != nil {
				return err
			}
			t.File(interpreter, linker, 0o755)
		}
		for _, name := range needed {
			if seen[name] {
				continue
			}
			seen[name] = true
			library, err := findLibrary(root, name)
			if err != nil {
				return fmt.Errorf("%s: %w", path.Base(file), err)
			}
			t.File(path.Join("lib/x86_64-linux-gnu", name), library, 0o755)
			todo = append(todo, library)
		}
	}
	return nil
}

// dynamic reads what an ELF file asks of the dynamic linker.
func dynamic(file string) (interpreter string, needed []string, err error) {
	f, err := elf.Open(file)
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", file, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			text := make([]byte, p.Filesz)
			if _, err := p.ReadAt(text, 0); err != nil {
				return "", nil, fmt.Errorf("%s: %w", file, err)
			}
			interpreter = strings.TrimRight(string(text), "\x00")
		}
	}
	needed, err = f.ImportedLibraries()
	return interpreter, needed, err
}

func findLibrary(root, name string) (string, error) {
	for _, dir := range libraryDirs {
		if file, err := within(root, path.Join(dir, name)); err == nil {
			return file, nil
		}
	}
	return "", fmt.Errorf("no library %s in the packages", name)
}

// within resolves a path of a file inside root, whose links are absolute in the system it is of.
func within(root, name string) (string, error) {
	for range 8 {
		file := filepath.Join(root, filepath.Clean("/"+name))
		info, err := os.Lstat(file)
		if err != nil {
			return "", err
		}
		if info.Mode().Type() != os.ModeSymlink {
			return file, nil
		}
		target, err := os.Readlink(file)
		if err != nil {
			return "", err
		}
		if !path.IsAbs(target) {
			target = path.Join(path.Dir("/"+name), target)
		}
		name = target
	}
	return "", fmt.Errorf("%s: too many links", name)
}
