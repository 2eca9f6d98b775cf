package vmm

import (
	"strings"
	"testing"

	"github.com/fineline-vmm/fineline/vmm/kvm"
)

// someCPU has a vendor, address sizes and entries.
func someCPU(entries ...kvm.CPUIDEntry) []kvm.CPUIDEntry {
	return append([]kvm.CPUIDEntry{
		{Function: 0, EAX: 0x20, EBX: 1, ECX: 2, EDX: 3},
		{Function: 0x8000_0008, EAX: 48<<8 | 46},
	}, entries...)
}

func TestBaselineHidesWhatDiffers(t *testing.T) {
	const all = ^uint32(0)
	for _, leaf := range [][2]uint32{{0xa, 0}, {7, 1}, {7, 2}, {0x14, 0}, {0x14, 1}, {0x8000_0022, 0}, {0x23, 0}} {
		host := someCPU(kvm.CPUIDEntry{Function: leaf[0], Index: leaf[1], EAX: all, EBX: all, ECX: all, EDX: all})
		other := someCPU(kvm.CPUIDEntry{Function: leaf[0], Index: leaf[1]})
		if missing := cpuidMissing(CPUBaseline.filter(host), CPUHost.filter(other)); len(missing) != 0 {
			t.Errorf("leaf %#x.%d: a baseline guest misses %v", leaf[0], leaf[1], missing)
		}
		if missing := cpuidMissing(CPUHost.filter(host), CPUHost.filter(other)); len(missing) == 0 {
			t.Errorf("leaf %#x.%d: a host guest misses nothing", leaf[0], leaf[1])
		}
		if missing := cpuidMissing(CPUHost.filter(host), CPUHost.filter(host)); len(missing) != 0 {
			t.Errorf("leaf %#x.%d: on the same host a guest misses %v", leaf[0], leaf[1], missing)
		}
	}
}

func TestAddressBits(t *testing.T) {
	for _, tt := range []struct {
		eax  uint32
		want string
	}{
		{48<<8 | 46, ""},
		{48<<8 | 39, ""},
		{48<<8 | 52, "physical addresses of 52 bits (here 46)"},
		{57<<8 | 46, "linear addresses of 57 bits (here 48)"},
	} {
		guest := someCPU()
		guest[1].EAX = tt.eax
		if got := strings.Join(cpuidMissing(guest, someCPU()), ", "); got != tt.want {
			t.Errorf("%#x: misses %q", tt.eax, got)
		}
	}
}

// TestCoresPerPackage: leaf 4 counts up to 64, in 6 bits.
func TestCoresPerPackage(t *testing.T) {
	for cpus, want := range map[int]uint32{1: 0, 2: 1, 64: 63, 65: 63, MaxCPUs: 63} {
		e := find(perCPU([]kvm.CPUIDEntry{{Function: 4, EAX: 0xffff_c121}}, 0, cpus), 4, 0)
		if e.EAX != want<<26|0x121 {
			t.Errorf("%d vCPUs: EAX %#x", cpus, e.EAX)
		}
	}
}
