package postcopy

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/memory"
)

// demandGuest is a guest with real missing memory, whose CPUs are system calls: they may block in a fault, as
// KVM_RUN does and Go code must not.
type demandGuest struct {
	guest  *memory.Guest
	demand *memory.Demand
}

func newDemandGuest(t testing.TB, pages uint64) *demandGuest {
	t.Helper()
	guest, err := memory.New([]memory.Region{{SizeBytes: pages * memory.PageSize}}, memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { guest.Close() })
	d, err := guest.Demand(setOf(guest, allPages(guest)...))
	if err != nil {
		t.Skipf("no missing memory on this host: %v", err)
	}
	t.Cleanup(func() { d.Close() })
	return &demandGuest{guest: guest, demand: d}
}

// load reads the first byte of a page through the guest's mapping.
func (g *demandGuest) load(gpa memory.GPA) (byte, error) {
	var b [1]byte
	local := []unix.Iovec{{Base: &b[0], Len: 1}}
	m := g.guest.GuestMappings()[0]
	remote := []unix.RemoteIovec{{Base: m.HostAddr + uintptr(gpa-m.Base), Len: 1}}
	_, err := unix.ProcessVMReadv(unix.Getpid(), local, remote, 0)
	return b[0], err
}
