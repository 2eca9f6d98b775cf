package pci

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Functions is where Linux lists them.
const Functions = "/sys/bus/pci/devices"

// ErrNotFound: this machine has no such function.
var ErrNotFound = errors.New("no such PCI device")

// ErrInUse: another process has the function.
var ErrInUse = errors.New("another process uses the device")

// The command register of a function's configuration space (PCI Local Bus Specification 3.0, 6.2.2).
const (
	commandOffset    = 4
	commandMemory    = 1 << 1
	commandBusMaster = 1 << 2
)

// Function is one PCI function, switched on, with BAR 0 mapped. Its accessors are for any number of goroutines.
type Function struct {
	dir  string
	lock *os.File
	bar  []byte
}

// Find returns the directory, below the one given, of the first function with these ids.
func Find(functions string, vendor, device uint16) (string, error) {
	entries, err := os.ReadDir(functions)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	for _, e := range entries {
		dir := filepath.Join(functions, e.Name())
		v, err1 := readID(filepath.Join(dir, "vendor"))
		d, err2 := readID(filepath.Join(dir, "device"))
		if err1 == nil && err2 == nil && v == vendor && d == device {
			return dir, nil
		}
	}
	return "", fmt.Errorf("%w: %04x:%04x", ErrNotFound, vendor, device)
}

func readID(path string) (uint16, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	id, err := strconv.ParseUint(strings.TrimSpace(string(text)), 0, 16)
	return uint16(id), err
}

// Open takes the function, lets it decode its memory and be bus master, and maps barBytes of BAR 0.
func Open(dir string, barBytes int) (*Function, error) {
	resource, err := os.OpenFile(filepath.Join(dir, "resource0"), os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open BAR 0 (needs root): %w", err)
	}
	f := &Function{dir: dir, lock: resource}
	if err := f.open(barBytes); err != nil {
		return nil, errors.Join(err, resource.Close())
	}
	return f, nil
}

func (f *Function) open(barBytes int) error {
	if err := unix.Flock(int(f.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return ErrInUse
	} else if err != nil {
		return fmt.Errorf("lock BAR 0: %w", err)
	}
	if err := os.WriteFile(filepath.Join(f.dir, "enable"), []byte("1"), 0o200); err != nil {
		return fmt.Errorf("enable: %w", err)
	}
	if err := f.setCommand(commandMemory|commandBusMaster, 0); err != nil {
		return err
	}
	bar, err := unix.Mmap(int(f.lock.Fd()), 0, barBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map BAR 0 (a kernel in lockdown refuses): %w", err)
	}
	f.bar = bar
	return nil
}

func (f *Function) setCommand(set, unset uint16) (err error) {
	config, err := os.OpenFile(filepath.Join(f.dir, "config"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, config.Close()) }()
	var b [2]byte
	if _, err := config.ReadAt(b[:], commandOffset); err != nil {
		return fmt.Errorf("read the command register: %w", err)
	}
	was := binary.LittleEndian.Uint16(b[:])
	binary.LittleEndian.PutUint16(b[:], was&^unset|set)
	if _, err := config.WriteAt(b[:], commandOffset); err != nil {
		return fmt.Errorf("write the command register: %w", err)
	}
	return nil
}

// Close takes bus mastering from the function, so that it cannot reach memory any more, unmaps the BAR and
// gives the function back. No accessor may be called after or at the same time.
func (f *Function) Close() error {
	err := f.setCommand(0, commandBusMaster)
	if err2 := os.WriteFile(filepath.Join(f.dir, "enable"), []byte("0"), 0o200); err2 != nil {
		err = errors.Join(err, fmt.Errorf("disable: %w", err2))
	}
	return errors.Join(err, unix.Munmap(f.bar), f.lock.Close())
}
