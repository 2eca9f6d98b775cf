package kvm

import (
	"errors"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestReadMSRsSkipsOnlyTheUnreadable(t *testing.T) {
	m := newTestVM(t, VMOptions{}, 1)
	c := m.cpus[0]
	must(t, c.writeMSRs([]MSR{{Index: msrSTAR, Value: 0x10_0000_0000}, {Index: msrLSTAR, Value: 0x1234}}))
	const unknown = 0xdead
	got, err := c.readMSRs([]uint32{unknown, msrSTAR, unknown, unknown, msrLSTAR, unknown})
	must(t, err)
	if want := []MSR{{Index: msrSTAR, Value: 0x10_0000_0000}, {Index: msrLSTAR, Value: 0x1234}}; !slices.Equal(got, want) {
		t.Errorf("got %#x, want %#x", got, want)
	}
	many := slices.Repeat([]uint32{msrLSTAR}, 2*maxMSRBatch+3)
	got, err = c.readMSRs(many)
	must(t, err)
	if len(got) != len(many) {
		t.Errorf("%d MSRs read, %d asked for", len(got), len(many))
	}
	must(t, c.writeMSRs(got))
}

func TestWriteMSRsGoesOnAfterAnEqualReadOnlyOne(t *testing.T) {
	m := newTestVM(t, VMOptions{}, 1)
	c := m.cpus[0]
	const mtrrCap = 0xfe // read-only
	present, err := c.readMSRs([]uint32{mtrrCap})
	must(t, err)
	must(t, c.writeMSRs([]MSR{present[0], {Index: msrLSTAR, Value: 0x77}}))
	got, err := c.readMSRs([]uint32{msrLSTAR})
	must(t, err)
	if got[0].Value != 0x77 {
		t.Errorf("the MSR after a refused one is %#x", got[0].Value)
	}
	present[0].Value++
	if err := c.writeMSRs(present); !errors.Is(err, ErrMSRRefused) {
		t.Errorf("another value: %v, want ErrMSRRefused", err)
	}
}

func TestProbeErrors(t *testing.T) {
	if _, err := probeAt(t.TempDir() + "/kvm"); !errors.Is(err, ErrNoDevice) {
		t.Errorf("no device: %v", err)
	}
	if _, err := probeAt("/dev/null"); !errors.Is(err, unix.ENOTTY) {
		t.Errorf("not KVM: %v", err)
	}
	if unix.Geteuid() != 0 { // root may open anything
		locked := t.TempDir() + "/kvm"
		must(t, os.WriteFile(locked, nil, 0))
		if _, err := probeAt(locked); !errors.Is(err, ErrPermission) {
			t.Errorf("no permission: %v", err)
		}
	}
}

func TestCloseTwice(t *testing.T) {
	m := newTestVM(t, VMOptions{}, 2)
	must(t, m.vm.Close())
	must(t, m.vm.Close())
	if err := m.cpus[0].Run(); !errors.Is(err, unix.EBADF) {
		t.Errorf("Run after Close: %v", err)
	}
	if _, err := m.cpus[0].Regs(); !errors.Is(err, unix.EBADF) {
		t.Errorf("Regs after Close: %v", err)
	}
}
