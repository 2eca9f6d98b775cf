package kvm

import (
	"fmt"
	"slices"

	gokvm "github.com/bobuhiro11/gokvm/kvm"

	"github.com/fineline-vmm/fineline/vmm/kvm/jsonlist"
)

// CPUIDSignificantIndex is the flag of an entry whose Index (ECX) matters.
const CPUIDSignificantIndex = 1

// CPUIDEntry is one CPUID leaf or subleaf.
type CPUIDEntry struct {
	Function uint32 `json:"function"`
	Index    uint32 `json:"index"`
	Flags    uint32 `json:"flags"`
	EAX      uint32 `json:"eax"`
	EBX      uint32 `json:"ebx"`
	ECX      uint32 `json:"ecx"`
	EDX      uint32 `json:"edx"`
}

// CPUIDEntries is what KVM takes for one vCPU; its JSON is bounded.
type CPUIDEntries []CPUIDEntry

func (l *CPUIDEntries) UnmarshalJSON(raw []byte) (err error) {
	*l, err = jsonlist.Decode[CPUIDEntry](raw, maxCPUIDEntries)
	return err
}

// SupportedCPUID returns the CPUID that a guest can have here. It is what KVM
// supports without VMX and SVM: the state of nested guests is not saved, so a
// guest must not see that it could have some.
func (s *System) SupportedCPUID() ([]CPUIDEntry, error) {
	list := &gokvm.CPUID{Nent: maxCPUIDEntries, Entries: make([]gokvm.CPUIDEntry2, maxCPUIDEntries)}
	if err := gokvm.GetSupportedCPUID(uintptr(s.fd), list); err != nil {
		return nil, named("KVM_GET_SUPPORTED_CPUID", err)
	}
	entries := make([]CPUIDEntry, 0, list.Nent)
	for _, e := range list.Entries[:list.Nent] {
		entries = append(entries, withoutNesting(CPUIDEntry{
			Function: e.Function, Index: e.Index, Flags: e.Flags, EAX: e.Eax, EBX: e.Ebx, ECX: e.Ecx, EDX: e.Edx,
		}))
	}
	return entries, nil
}

func withoutNesting(e CPUIDEntry) CPUIDEntry {
	const (
		vmx = 1 << 5 // leaf 1 ECX, Intel SDM vol. 2A
		svm = 1 << 2 // leaf 0x80000001 ECX, AMD APM vol. 3
	)
	switch e.Function {
	case 1:
		e.ECX &^= vmx
	case 0x8000_0001:
		e.ECX &^= svm
	}
	return e
}

// SetCPUID gives the vCPU its CPUID. KVM allows no change after the first Run.
func (c *VCPU) SetCPUID(entries []CPUIDEntry) error {
	if len(entries) > maxCPUIDEntries {
		return fmt.Errorf("KVM_SET_CPUID2: %d entries, KVM takes at most %d", len(entries), maxCPUIDEntries)
	}
	list := &gokvm.CPUID{Nent: uint32(len(entries)), Entries: make([]gokvm.CPUIDEntry2, len(entries))}
	for i, e := range entries {
		list.Entries[i] = gokvm.CPUIDEntry2{
			Function: e.Function, Index: e.Index, Flags: e.Flags, Eax: e.EAX, Ebx: e.EBX, Ecx: e.ECX, Edx: e.EDX,
		}
	}
	if err := gokvm.SetCPUID2(uintptr(c.fd), list); err != nil {
		return named("KVM_SET_CPUID2", err)
	}
	c.cpuid = slices.Clone(entries)
	return nil
}
