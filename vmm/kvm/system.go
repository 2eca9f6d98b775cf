package kvm

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	gokvm "github.com/bobuhiro11/gokvm/kvm"
	"golang.org/x/sys/unix"
)

const (
	devicePath = "/dev/kvm"
	// apiVersion is final since Linux 2.6.22 (KVM API, section 4.1).
	apiVersion = 12
	// maxCPUIDEntries is the kernel's KVM_MAX_CPUID_ENTRIES.
	maxCPUIDEntries = 256
)

// Kind is how this host's KVM runs guest code.
type Kind int

const (
	// Hardware KVM uses VMX or SVM and runs any guest.
	Hardware Kind = iota
	// Software KVM (PVM) runs CPL 3 natively and emulates the rest.
	Software
)

func (k Kind) String() string {
	if k == Hardware {
		return "hardware"
	}
	return "software"
}

// System is an open /dev/kvm. Its methods are safe for concurrent use.
type System struct {
	fd        int
	kind      Kind
	found     []CapabilityStatus
	mmapBytes int
}

// Probe opens /dev/kvm and asks for every capability without judging them, for
// `fineline doctor`. Its errors wrap ErrNoDevice or ErrPermission.
func Probe() (*System, error) { return probeAt(devicePath) }

func probeAt(path string) (*System, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return nil, fmt.Errorf("%w: %w", ErrNoDevice, err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w: %w", ErrPermission, err)
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	s := &System{fd: fd, kind: hostKind()}
	if err := s.probe(); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

// Open is Probe, and an error that wraps ErrMissing and names every required
// capability that this KVM lacks. The caller owns the result and closes it.
func Open() (*System, error) {
	s, err := Probe()
	if err != nil {
		return nil, err
	}
	if err := missing(s.found); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

func (s *System) probe() (err error) {
	version, err := ioctl(s.fd, reqGetAPIVersion, 0)
	if err != nil {
		return err
	}
	if version != apiVersion {
		return fmt.Errorf("%w API version %d (it has %d): run a newer Linux", ErrMissing, apiVersion, version)
	}
	if s.mmapBytes, err = ioctl(s.fd, reqGetVCPUMmapSize, 0); err != nil {
		return err
	}
	s.found, err = probe(capabilities, func(c gokvm.Capability) (int, error) {
		return ioctl(s.fd, reqCheckExtension, uintptr(c))
	})
	return err
}

// Close releases /dev/kvm. VMs that were made stay usable.
func (s *System) Close() error {
	if err := unix.Close(s.fd); err != nil {
		return fmt.Errorf("close %s: %w", devicePath, err)
	}
	return nil
}

// Kind says how guest code runs here.
func (s *System) Kind() Kind { return s.kind }

// Capabilities returns every capability that Fineline knows of, as found here.
func (s *System) Capabilities() []CapabilityStatus { return slices.Clone(s.found) }

// capability returns KVM's answer for one capability of the list.
func (s *System) capability(number gokvm.Capability) int {
	for _, c := range s.found {
		if c.Number == int(number) {
			return c.Value
		}
	}
	panic(fmt.Sprintf("kvm: capability %d is not on the list", number))
}

// hostKind looks for VMX or SVM. Without /proc it says Software, the kind that
// promises less.
func hostKind() Kind {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return Software
	}
	defer f.Close()
	return kindOf(f)
}

// kindOf reads a /proc/cpuinfo; all CPUs of a host are alike in this.
func kindOf(cpuinfo io.Reader) Kind {
	lines := bufio.NewScanner(cpuinfo)
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ":")
		if strings.TrimSpace(key) != "flags" {
			continue
		}
		flags := strings.Fields(value)
		if slices.Contains(flags, "vmx") || slices.Contains(flags, "svm") {
			return Hardware
		}
		return Software
	}
	return Software
}

// MSRIndices lists the MSRs that KVM saves and restores on this host.
func (s *System) MSRIndices() ([]uint32, error) {
	list := new(gokvm.MSRList)
	list.NMSRs = uint32(len(list.Indicies))
	if err := gokvm.GetMSRIndexList(uintptr(s.fd), list); err != nil {
		return nil, named("KVM_GET_MSR_INDEX_LIST", err)
	}
	return slices.Clone(list.Indicies[:list.NMSRs]), nil
}
