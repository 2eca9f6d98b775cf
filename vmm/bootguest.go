package vmm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/images"
	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/vmm/acpi"
	"github.com/fineline-vmm/fineline/vmm/boot"
	"github.com/fineline-vmm/fineline/vmm/kvm"
)

// BuiltinPrefix marks a kernel that is one of the tiny guests in the binary.
const BuiltinPrefix = "builtin:"

// BootFiles says what a guest is booted from. It moves with the machine, so that
// a reset works at the destination when the files are there too.
type BootFiles struct {
	Kernel  string `json:"kernel"` // a path, or builtin:NAME
	Initrd  string `json:"initrd,omitempty"`
	Cmdline string `json:"cmdline,omitempty"`
}

// absolute makes the paths mean the same in every working directory: a reset may come in
// another process, where the machine has moved to.
func (b BootFiles) absolute() (BootFiles, error) {
	for _, path := range []*string{&b.Kernel, &b.Initrd} {
		if *path == "" || strings.HasPrefix(*path, BuiltinPrefix) {
			continue
		}
		full, err := filepath.Abs(*path)
		if err != nil {
			return b, fmt.Errorf("%s: %w", *path, err)
		}
		*path = full
	}
	return b, nil
}

// validate keeps a peer's strings short enough for errors and logs.
func (b BootFiles) validate() error {
	if len(b.Kernel) > unix.PathMax || len(b.Initrd) > unix.PathMax {
		return fmt.Errorf("%w: the path of a kernel or initrd has at most %d bytes", ErrConfig, unix.PathMax)
	}
	return nil
}

// Boot loads the guest of Config.Boot into a machine that was just built. The
// machine is paused after it.
func (m *Machine) Boot() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.status != Created {
		return errors.New("the machine already has a guest")
	}
	if err := m.loadGuest(); err != nil {
		return err
	}
	m.status = Paused
	return nil
}

// loadGuest puts tables and kernel into zeroed memory and points the first vCPU at
// the entry. Preconditions: m.mu held, all vCPUs parked in their power-on state.
func (m *Machine) loadGuest() error {
	src, err := m.cfg.Boot.open()
	if err != nil {
		return err
	}
	defer src.close()
	if m.pinned != nil {
		if err := m.pinned.check(src, m.mem.SizeBytes()); err != nil {
			return err
		}
	}
	rsdp, err := acpi.Write(m.mem, acpiStart, acpiBytes, acpi.Config{
		CPUs:           m.cfg.CPUs,
		ECAMBase:       ecamBase,
		ECAMBuses:      ecamBytes >> 20,
		PCIWindowBase:  pciWindowBase,
		PCIWindowBytes: pciWindowBytes,
		IOAPICBase:     ioapicBase,
		LAPICBase:      lapicBase,
		SCI:            irqSCI,
		RTCIRQ:         irqRTC,
		SerialIRQ:      irqCOM1,
	})
	if err != nil {
		return err
	}
	entry, err := boot.Load(m.mem, src.Source, boot.Params{
		E820: e820Map(m.mem.Regions()), RSDP: rsdp,
		Occupied: []memory.Region{{Base: acpiStart, SizeBytes: acpiBytes}},
	})
	if err != nil {
		return fmt.Errorf("load %s: %w", m.cfg.Boot.Kernel, err)
	}
	return m.cpus[0].do(func(v *kvm.VCPU) error { return EnterKernel(v, entry) })
}

// bootSource is the opened files of a boot.
type bootSource struct {
	boot.Source
	files []*os.File
}

func (s *bootSource) close() {
	for _, f := range s.files {
		_ = f.Close() // only read
	}
}

func (b BootFiles) open() (_ *bootSource, err error) {
	s := &bootSource{Source: boot.Source{Cmdline: b.Cmdline}}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if name, ok := strings.CutPrefix(b.Kernel, BuiltinPrefix); ok {
		image, ok := images.Builtin(name)
		if !ok {
			return nil, fmt.Errorf("no builtin guest %.100q: choose one of %s", name, strings.Join(images.Names(), ", "))
		}
		s.Kernel, s.KernelSizeBytes = bytes.NewReader(image), int64(len(image))
	} else if s.Kernel, s.KernelSizeBytes, err = s.openFile("kernel", b.Kernel); err != nil {
		return nil, err
	}
	if b.Initrd != "" {
		if s.Initrd, s.InitrdSizeBytes, err = s.openFile("initrd", b.Initrd); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *bootSource) openFile(what, path string) (io.ReaderAt, int64, error) {
	// Opening a FIFO waits for its writer, unless it may not.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", what, err)
	}
	s.files = append(s.files, f)
	info, err := f.Stat()
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", what, err)
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s: %s is not a regular file", what, path)
	}
	return f, info.Size(), nil
}
