package vmm

import (
	"errors"
	"fmt"
	"strings"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/vmm/kvm"
)

// ErrIncompatible is wrapped by every refusal to take over a machine.
var ErrIncompatible = errors.New("this host can't take over the machine")

// description is the shape of a machine: all that a destination must be able to
// build before the source stops for a moment.
type description struct {
	// KVM is the kind of the source's. A state does not move between kinds: the
	// software kind drops IOPL from RFLAGS, for one.
	KVM       string           `json:"kvm"`
	CPUs      int              `json:"cpus"`
	Regions   []memory.Region  `json:"memory_regions"`
	HugePages bool             `json:"huge_pages"`
	DirtyRing bool             `json:"dirty_ring"`
	NoReboot  bool             `json:"no_reboot"`
	CPUModel  CPUModel         `json:"cpu_model"`
	CPUID     []kvm.CPUIDEntry `json:"cpuid"`
	Devices   []string         `json:"devices"`
	Boot      BootFiles        `json:"boot"`
}

// Description returns the sealed shape of the machine, for NewFromDescription.
func (m *Machine) Description() ([]byte, error) {
	return seal(&description{
		KVM:       m.sys.Kind().String(),
		CPUs:      m.cfg.CPUs,
		Regions:   m.mem.Regions(),
		HugePages: m.cfg.HugePages,
		DirtyRing: m.cfg.DirtyRing,
		NoReboot:  m.cfg.NoReboot,
		CPUModel:  m.cfg.CPUModel,
		CPUID:     m.cpuid,
		Devices:   deviceNames(),
		Boot:      m.cfg.Boot,
	})
}

// NewFromDescription builds a machine of the shape that sealed describes, or
// refuses with ErrIncompatible and the reason. CPUs and MemoryBytes of local must
// agree with it unless they are zero; SerialOut is local's. The machine waits for
// Restore.
func NewFromDescription(sealed []byte, local Config) (*Machine, error) {
	var d description
	if err := open(sealed, &d); err != nil {
		return nil, err
	}
	cfg, err := d.config(local)
	if err != nil {
		return nil, err
	}
	sys, err := kvm.Open()
	if err != nil {
		return nil, err
	}
	kind := sys.Kind().String()
	supported, err := sys.SupportedCPUID()
	if closeErr := sys.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, err
	}
	if d.KVM != kind {
		return nil, fmt.Errorf("%w: its guest runs on %s KVM, this host has %s KVM", ErrIncompatible, d.KVM, kind)
	}
	if missing := cpuidMissing(d.CPUID, CPUHost.filter(supported)); len(missing) > 0 {
		return nil, fmt.Errorf("%w: the guest uses %s; start it with --cpu baseline to move between unlike hosts",
			ErrIncompatible, strings.Join(missing, ", "))
	}
	return build(cfg, d.CPUID)
}

// config checks what the peer and the local user say against each other.
func (d *description) config(local Config) (Config, error) {
	var sizeBytes uint64
	for _, r := range d.Regions {
		sizeBytes += r.SizeBytes
	}
	cfg := Config{
		CPUs: d.CPUs, MemoryBytes: sizeBytes, HugePages: d.HugePages, DirtyRing: d.DirtyRing,
		NoReboot: d.NoReboot, CPUModel: d.CPUModel, Boot: d.Boot, SerialOut: local.SerialOut,
	}
	if err := cfg.Validate(); err != nil {
		return Config{}, fmt.Errorf("%w: %w", ErrIncompatible, err)
	}
	if got, want := fmt.Sprint(d.Regions), fmt.Sprint(ramRegions(sizeBytes)); got != want {
		return Config{}, fmt.Errorf("%w: its memory lies at %s, here it would lie at %s", ErrIncompatible, got, want)
	}
	if got, want := strings.Join(d.Devices, ","), strings.Join(deviceNames(), ","); got != want {
		return Config{}, fmt.Errorf("%w: it has the devices %s, this build has %s", ErrIncompatible, got, want)
	}
	if local.CPUs != 0 && local.CPUs != d.CPUs {
		return Config{}, fmt.Errorf("%w: --cpus %d here, the source has %d", ErrIncompatible, local.CPUs, d.CPUs)
	}
	if local.MemoryBytes != 0 && local.MemoryBytes != sizeBytes {
		return Config{}, fmt.Errorf("%w: --memory %d bytes here, the source has %d", ErrIncompatible, local.MemoryBytes, sizeBytes)
	}
	return cfg, nil
}
