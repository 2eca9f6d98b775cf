package vmm

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/fineline-vmm/fineline/memory"
	"github.com/fineline-vmm/fineline/vmm/kvm"
	"github.com/fineline-vmm/fineline/vmm/kvm/jsonlist"
)

// ErrIncompatible is wrapped by every refusal to take over a machine.
var ErrIncompatible = errors.New("this host can't take over the machine")

// description is the shape of a machine: all that a destination must be able to
// build before the source stops for a moment.
type description struct {
	// KVM is the kind of the source's. A state does not move between kinds: the
	// software kind drops IOPL from RFLAGS, for one.
	KVM        string           `json:"kvm"`
	CPUs       int              `json:"cpus"`
	Regions    regionList       `json:"memory_regions"`
	HugePages  bool             `json:"huge_pages"`
	DirtyRing  bool             `json:"dirty_ring"`
	NoReboot   bool             `json:"no_reboot"`
	CPUModel   CPUModel         `json:"cpu_model"`
	CPUID      kvm.CPUIDEntries `json:"cpuid"`
	TSCKHz     uint64           `json:"tsc_khz"`
	XSaveBytes int              `json:"xsave_bytes"`
	MSRs       indexList        `json:"msrs"` // the registers that each vCPU's state has
	Devices    nameList         `json:"devices"`
	Boot       BootFiles        `json:"boot"`
	Digests    bootDigests      `json:"boot_digests"`
}

// Lists that a peer sends, bounded while they are decoded.
type (
	regionList []memory.Region
	indexList  []uint32
	nameList   []string
)

const maxNames = 64 // regions or devices of a machine, and many to spare

func (l *regionList) UnmarshalJSON(raw []byte) (err error) {
	*l, err = jsonlist.Decode[memory.Region](raw, maxNames)
	return err
}

func (l *indexList) UnmarshalJSON(raw []byte) (err error) {
	*l, err = jsonlist.Decode[uint32](raw, kvm.MaxSavedMSRs)
	return err
}

func (l *nameList) UnmarshalJSON(raw []byte) (err error) {
	*l, err = jsonlist.Decode[string](raw, maxNames)
	return err
}

// Description returns the sealed shape of the machine, for NewFromDescription.
func (m *Machine) Description() ([]byte, error) {
	// Who asks is about to save the machine, with its guest stopped: the first seal of a process takes
	// three times as long as others.
	if _, err := m.powerOn.seal(); err != nil {
		return nil, err
	}
	cpu := m.powerOn.vcpus[0] // all are alike, and stay so
	d := description{
		KVM:        m.sys.Kind().String(),
		CPUs:       m.cfg.CPUs,
		Regions:    m.mem.Regions(),
		HugePages:  m.cfg.HugePages,
		DirtyRing:  m.cfg.DirtyRing,
		NoReboot:   m.cfg.NoReboot,
		CPUModel:   m.cfg.CPUModel,
		CPUID:      m.cpuid,
		TSCKHz:     cpu.TSC.KHz,
		XSaveBytes: len(cpu.XSave),
		Devices:    deviceNames(),
		Boot:       m.cfg.Boot,
	}
	for _, r := range cpu.MSRs {
		d.MSRs = append(d.MSRs, r.Index)
	}
	if m.pinned != nil {
		d.Digests = *m.pinned
	} else {
		d.Digests = m.cfg.Boot.digests()
	}
	return seal(&d)
}

// NewFromDescription builds a machine of the shape that sealed describes, or
// refuses with ErrIncompatible and the reason: whatever can be known to fail at Restore,
// when the guest stands still, is refused here. Of local, Accept has a say, and SerialOut
// and what lines are compared with are used; the rest is the source's. The machine waits for Restore.
func NewFromDescription(sealed []byte, local Config) (*Machine, error) {
	return newFromDescription(sealed, local, freshMemory)
}

func newFromDescription(sealed []byte, local Config, ram func(Config) (*memory.Guest, error)) (*Machine, error) {
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
		return nil, fmt.Errorf("%w: its guest runs on %.20q KVM, this host has %s KVM", ErrIncompatible, d.KVM, kind)
	}
	if missing := cpuidMissing(d.CPUID, CPUHost.filter(supported)); len(missing) > 0 {
		return nil, fmt.Errorf("%w: the guest uses %s; start it with --cpu baseline to move between unlike hosts",
			ErrIncompatible, strings.Join(missing, ", "))
	}
	m, err := build(cfg, ram, &d)
	if err != nil {
		return nil, err
	}
	err = d.checkCPU(m.powerOn.vcpus[0])
	if err == nil {
		err = m.rehearse()
	}
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// checkCPU refuses a vCPU state that one of this host, own, can't be put into.
func (d *description) checkCPU(own *kvm.VCPUState) error {
	if d.XSaveBytes > len(own.XSave) {
		return fmt.Errorf("%w: its XSAVE area has %d bytes, here %d", ErrIncompatible, d.XSaveBytes, len(own.XSave))
	}
	have := make(map[uint32]bool, len(own.MSRs))
	for _, r := range own.MSRs {
		have[r.Index] = true
	}
	for _, index := range d.MSRs {
		if !have[index] {
			return fmt.Errorf("%w: the guest has the MSR %#x, which does not exist here", ErrIncompatible, index)
		}
	}
	return nil
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
		LineBaseline: local.LineBaseline, LineBudgetBytes: local.LineBudgetBytes, HomedMissing: local.HomedMissing,
	}
	if err := cfg.Validate(); err != nil {
		return Config{}, fmt.Errorf("%w: %w", ErrIncompatible, err)
	}
	if want := ramRegions(sizeBytes); !slices.Equal([]memory.Region(d.Regions), want) {
		return Config{}, fmt.Errorf("%w: its memory lies at %v, here it would lie at %v", ErrIncompatible, d.Regions, want)
	}
	if got, want := strings.Join(d.Devices, ","), strings.Join(deviceNames(), ","); got != want {
		return Config{}, fmt.Errorf("%w: it has the %d devices %.200q, this build has %q", ErrIncompatible, len(d.Devices), got, want)
	}
	if local.Accept != nil {
		if err := local.Accept(cfg); err != nil {
			return Config{}, fmt.Errorf("%w: %w", ErrIncompatible, err)
		}
	}
	return cfg, nil
}
