package postcopy

import (
	"math/rand/v2"
	"sync"
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

// TestDemand is the whole of it with missing memory and threads that fault in the kernel, and a connection that
// is lost.
func TestDemand(t *testing.T) {
	const pages = 3000
	g := newDemandGuest(t, pages)
	source, err := memory.New([]memory.Region{{SizeBytes: pages * memory.PageSize}}, memory.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	all := allPages(source)
	for _, gpa := range all {
		if err := source.WriteAt(gpa, sourcePage(gpa)); err != nil {
			t.Fatal(err)
		}
	}
	var cpus sync.WaitGroup
	for cpu := range 3 {
		cpus.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(cpu)))
			for _, i := range rnd.Perm(pages) {
				got, err := g.load(all[i])
				if want := sourcePage(all[i])[0]; err != nil || got != want {
					t.Errorf("page %#x begins with %#x, %v; want %#x", i, got, err, want)
					return
				}
			}
		})
	}
	s := NewServer(source, setOf(source, all...), ServerOptions{})
	p := newPagerOf(t, g.demand, "auto", g.guest)
	runCut(t, s, p, 30, 30)
	cpus.Wait()
	t.Logf("%+v", p.Stats())
}
