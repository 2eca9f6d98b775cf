package kvm

import (
	"slices"
	"testing"

	"github.com/fineline-vmm/fineline/memory"
)

func TestTouchedPages(t *testing.T) {
	const pg, pae, lma = 1 << 31, 1 << 5, 1 << 10
	for name, c := range map[string]struct {
		state VCPUState
		want  []memory.GPA
	}{
		"nothing":    {VCPUState{MSRs: []MSR{{Index: msrTSC, Value: 0x5001}, {Index: msrKVMSystemTimeNew, Value: 0x7040}}}, nil},
		"kvmclock":   {VCPUState{MSRs: []MSR{{Index: msrKVMSystemTimeNew, Value: 0x7041}, {Index: msrKVMSystemTime, Value: 1<<32 | 1}}}, []memory.GPA{0x7000, 1 << 32}},
		"PAE":        {VCPUState{Sregs: Sregs{CR0: pg, CR4: pae, CR3: 0x12345fe0}}, []memory.GPA{0x12345000}},
		"PAE is off": {VCPUState{Sregs: Sregs{CR4: pae, CR3: 0x12345fe0}}, nil},
		"64 bits":    {VCPUState{Sregs: Sregs{CR0: pg, CR4: pae, EFER: lma, CR3: 0x12345000}}, nil},
	} {
		if got := c.state.TouchedPages(); !slices.Equal(got, c.want) {
			t.Errorf("%s: %#x, want %#x", name, got, c.want)
		}
	}
}
