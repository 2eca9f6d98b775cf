package linux

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxModuleBytes bounds one unpacked module.
const maxModuleBytes = 64 << 20

// Module is one loadable kernel module, unpacked.
type Module struct {
	Name string // with '_' for '-', as /proc/modules writes it
	ELF  []byte
}

// Modules returns the named modules and all that they depend on, in the order
// in which they must be loaded. A name that the kernel has built in, or does
// not have, is an error: the caller asked for something it needs.
func (k *KernelFiles) Modules(ctx context.Context, names ...string) ([]Module, error) {
	index, err := indexModules(k.ModuleDir)
	if err != nil {
		return nil, err
	}
	var order []Module
	done := map[string]bool{}
	var load func(name string) error
	load = func(name string) error {
		name = moduleName(name)
		if done[name] {
			return nil
		}
		done[name] = true // before the dependencies: a cycle must end
		path, ok := index[name]
		if !ok {
			return fmt.Errorf("kernel %s has no module %s", k.Release, name)
		}
		data, err := readModule(ctx, path)
		if err != nil {
			return err
		}
		depends, err := moduleDepends(data)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		for _, d := range depends {
			if err := load(d); err != nil {
				return err
			}
		}
		order = append(order, Module{Name: name, ELF: data})
		return nil
	}
	for _, n := range names {
		if err := load(n); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// indexModules maps module names to paths. The package has no modules.dep:
// its install script makes that.
func indexModules(root string) (map[string]string, error) {
	index := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if base, _, ok := strings.Cut(d.Name(), ".ko"); ok && d.Type().IsRegular() {
			index[moduleName(base)] = path
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("kernel modules: %w", err)
	}
	return index, nil
}

func readModule(ctx context.Context, path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	data, err = decompress(ctx, data, maxModuleBytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return data, nil
}

// moduleDepends reads the names of the modules that this one needs from its
// .modinfo section: NUL-separated key=value.
func moduleDepends(module []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("not a kernel module: no .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	return parseModinfoDepends(string(info)), nil
}

func parseModinfoDepends(info string) []string {
	var names []string
	for field := range strings.SplitSeq(info, "\x00") {
		list, ok := strings.CutPrefix(field, "depends=")
		if !ok {
			continue
		}
		for name := range strings.SplitSeq(list, ",") {
			if name != "" {
				names = append(names, moduleName(name))
			}
		}
	}
	return names
}

// moduleName is the one spelling: files and dependencies mix '-' and '_'.
func moduleName(s string) string { return strings.ReplaceAll(s, "-", "_") }
