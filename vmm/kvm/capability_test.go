package kvm

import (
	"errors"
	"strings"
	"testing"

	gokvm "github.com/bobuhiro11/gokvm/kvm"
)

func TestMissingCapabilitiesAreAllNamed(t *testing.T) {
	list := []capability{
		{1, "KVM_CAP_THERE", 1, true, "is there", ""},
		{2, "KVM_CAP_GONE", 1, true, "is gone", "buy one"},
		{3, "KVM_CAP_SMALL", 4096, true, "is too small", "enlarge it"},
		{4, "KVM_CAP_NICE", 1, false, "would be nice", ""},
	}
	answers := map[gokvm.Capability]int{1: 1, 3: 17}
	found, err := probe(list, func(c gokvm.Capability) (int, error) { return answers[c], nil })
	must(t, err)
	err = missing(found)
	if !errors.Is(err, ErrMissing) {
		t.Fatalf("%v, want ErrMissing", err)
	}
	for _, part := range []string{"KVM_CAP_GONE", "buy one", "KVM_CAP_SMALL", "found 17, need 4096"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in: %v", part, err)
		}
	}
	for _, part := range []string{"KVM_CAP_THERE", "KVM_CAP_NICE"} {
		if strings.Contains(err.Error(), part) {
			t.Errorf("%q is in: %v", part, err)
		}
	}
	answers[2], answers[3] = 1, 4096
	found, err = probe(list, func(c gokvm.Capability) (int, error) { return answers[c], nil })
	must(t, err)
	must(t, missing(found))

	broken := errors.New("broken")
	if _, err := probe(list, func(gokvm.Capability) (int, error) { return 0, broken }); !errors.Is(err, broken) {
		t.Errorf("%v, want the cause", err)
	}
}

func TestCapabilityListIsWellFormed(t *testing.T) {
	seen := map[gokvm.Capability]bool{}
	for _, c := range capabilities {
		if seen[c.number] || c.name == "" || c.minimum < 1 || c.meaning == "" || c.remedy == "" {
			t.Errorf("bad or double line: %+v", c)
		}
		seen[c.number] = true
	}
	if got := capabilityName(250); got != "capability 250" {
		t.Errorf("name of an unlisted capability: %s", got)
	}
}

func TestKindOf(t *testing.T) {
	cases := []struct {
		name, cpuinfo string
		want          Kind
	}{
		{"Intel", "processor\t: 0\nflags\t\t: fpu vmx sse\n", Hardware},
		{"AMD", "flags : fpu svm", Hardware},
		{"neither", "flags\t: fpu sse svm_lock avmx\nvmx flags\t: vnmi", Software},
		{"no flags", "model : vmx\n", Software},
		{"empty", "", Software},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			if got := kindOf(strings.NewReader(tc.cpuinfo)); got != tc.want {
				t.Errorf("%v, want %v", got, tc.want)
			}
		})
	}
}

func TestSystem(t *testing.T) {
	sys := openKVM(t)
	t.Logf("%v KVM", sys.Kind())
	for _, c := range sys.Capabilities() {
		t.Logf("%-40s %d", c.Name, c.Value)
	}
	entries, err := sys.SupportedCPUID()
	must(t, err)
	if len(entries) < 5 {
		t.Errorf("only %d CPUID entries", len(entries))
	}
	for _, e := range entries {
		if e != withoutNesting(e) {
			t.Errorf("CPUID leaf %#x offers nested virtualization", e.Function)
		}
	}
	indices, err := sys.MSRIndices()
	must(t, err)
	if len(indices) == 0 {
		t.Error("no MSRs")
	}
}

func TestWithoutNesting(t *testing.T) {
	all := ^uint32(0)
	if got := withoutNesting(CPUIDEntry{Function: 1, ECX: all}).ECX; got != all&^(1<<5) {
		t.Errorf("leaf 1 ECX %#x", got)
	}
	if got := withoutNesting(CPUIDEntry{Function: 0x8000_0001, ECX: all}).ECX; got != all&^(1<<2) {
		t.Errorf("leaf 0x80000001 ECX %#x", got)
	}
	if got := withoutNesting(CPUIDEntry{Function: 7, ECX: all}).ECX; got != all {
		t.Errorf("leaf 7 ECX %#x", got)
	}
}
