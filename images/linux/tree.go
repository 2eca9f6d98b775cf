package linux

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"
)

// Tree is the content of an initial file system. Names are paths in it, with
// or without a leading slash; missing parent directories are made. A later
// entry of the same name replaces the earlier one. Errors are kept and
// returned by WriteFile, so that a tree is written down as a plain list.
// A Tree is for one goroutine.
type Tree struct {
	entries map[string]entry
	err     error
}

// entry is a cpio record whose content may still be a file of the host, which
// is opened only while the archive is written: trees hold many large files.
type entry struct {
	record   cpio.Record
	hostPath string
}

// NewTree returns a tree with the directories that every init needs and the
// console device that the kernel opens for it.
func NewTree() *Tree {
	t := &Tree{entries: map[string]entry{}}
	for _, dir := range []string{"bin", "dev", "etc", "proc", "root", "sys", "tmp"} {
		t.Dir(dir)
	}
	t.CharDev("dev/console", 5, 1)
	t.CharDev("dev/null", 1, 3)
	return t
}

// Dir adds a directory.
func (t *Tree) Dir(name string) { t.add(cpio.Directory(name, 0o755), "") }

// Bytes adds a file with that content. perm is its Unix permissions.
func (t *Tree) Bytes(name string, content []byte, perm uint64) {
	t.add(cpio.StaticFile(name, string(content), perm), "")
}

// File adds a file whose content is read from hostPath by WriteFile.
func (t *Tree) File(name, hostPath string, perm uint64) {
	info, err := os.Stat(hostPath)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", hostPath)
	}
	if err != nil {
		t.err = errors.Join(t.err, err)
		return
	}
	t.add(cpio.Record{Info: cpio.Info{
		Name: name, Mode: cpio.S_IFREG | perm, FileSize: uint64(info.Size()),
	}}, hostPath)
}

// Copy adds the regular files below hostDir, keeping their permissions.
func (t *Tree) Copy(name, hostDir string) {
	err := filepath.WalkDir(hostDir, func(p string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(hostDir, p)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		t.File(path.Join(name, filepath.ToSlash(rel)), p, uint64(info.Mode().Perm()))
		return nil
	})
	t.err = errors.Join(t.err, err)
}

// Symlink adds a symbolic link.
func (t *Tree) Symlink(name, target string) { t.add(cpio.Symlink(name, target), "") }

// CharDev adds a character device.
func (t *Tree) CharDev(name string, major, minor uint64) {
	t.add(cpio.CharDev(name, 0o600, major, minor), "")
}

// Busybox adds the host's static busybox and links for all its applets.
func (t *Tree) Busybox(hostPath string, applets []string) {
	for _, a := range applets {
		t.Symlink(path.Join("bin", path.Base(a)), "busybox")
	}
	t.File("bin/busybox", hostPath, 0o755) // last: busybox lists itself
}

func (t *Tree) add(r cpio.Record, hostPath string) {
	r.Name = cpio.Normalize(r.Name)
	if r.Name == "." || r.Name == ".." || strings.HasPrefix(r.Name, "../") {
		t.err = errors.Join(t.err, fmt.Errorf("%q is not a name inside the tree", r.Name))
		return
	}
	// The kernel silently drops files whose directory does not exist yet.
	for dir := path.Dir(r.Name); dir != "."; dir = path.Dir(dir) {
		if _, ok := t.entries[dir]; !ok {
			t.entries[dir] = entry{record: cpio.Directory(dir, 0o755)}
		}
	}
	t.entries[r.Name] = entry{record: r, hostPath: hostPath}
}

// WriteFile writes the tree as a newc cpio archive: sorted, with no times,
// owners or host numbers, so equal content gives equal bytes.
func (t *Tree) WriteFile(name string) error {
	if t.err != nil {
		return t.err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(t.write(f), f.Close())
}

func (t *Tree) write(w io.Writer) error {
	names := make([]string, 0, len(t.entries))
	for name := range t.entries {
		names = append(names, name)
	}
	slices.Sort(names) // a directory sorts before what it holds
	out := cpio.Newc.Writer(w)
	for i, name := range names {
		e := t.entries[name]
		e.record.Ino = uint64(i + 1)
		if err := e.write(out); err != nil {
			return fmt.Errorf("initramfs %s: %w", name, err)
		}
	}
	return cpio.WriteTrailer(out)
}

func (e entry) write(out cpio.RecordWriter) error {
	switch {
	case e.hostPath != "":
		f, err := os.Open(e.hostPath)
		if err != nil {
			return err
		}
		// The writer closes its source when it implements io.Closer.
		e.record.ReaderAt = f
	case e.record.ReaderAt == nil:
		e.record.ReaderAt = bytes.NewReader(nil)
	}
	return out.WriteRecord(cpio.MakeReproducible(e.record))
}
