package track

import (
	"errors"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/memory"
)

func newProcess(t *testing.T, pages, flags int, o Options) ([]byte, *Process) {
	t.Helper()
	region, err := unix.Mmap(-1, 0, pages*memory.PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|flags)
	must(t, err)
	t.Cleanup(func() { must(t, unix.Munmap(region)) })
	p, err := NewProcess(region, o)
	must(t, err)
	return region, p
}

// The lines that change in a region of this process are found, whichever pages were ever touched, and
// by both methods.
func TestProcess(t *testing.T) {
	for name, flags := range map[string]int{"private": unix.MAP_PRIVATE, "shared": unix.MAP_SHARED} {
		for _, scan := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				const pages = 1200 // over chunks
				region, p := newProcess(t, pages, flags, Options{})
				region[5] = 1
				must(t, p.Arm())
				if scan && p.Method() != "pagemap scan" {
					t.Skipf("needs PAGEMAP_SCAN (Linux 6.7)")
				}
				if !scan {
					must(t, p.written.stop(region))
				}
				r := rand.New(rand.NewPCG(1, 2))
				for round := range 20 {
					want := lines{}
					for range r.IntN(50) {
						at := r.IntN(len(region))
						region[at]++
						want.add(memory.GPA(at), 1)
					}
					region[r.IntN(len(region))] += 0 // silent
					got := lines{}
					for more := true; more; {
						var err error
						more, err = p.Harvest(7, func(page Page) { got[page.GPA] |= page.Lines })
						must(t, err)
					}
					if got.String() != want.String() {
						t.Fatalf("round %d: %v, want %v", round, got, want)
					}
				}
				region[100]++
				must(t, p.Stop())
				region[5000]++
				n := 0
				_, err := p.Harvest(0, func(page Page) { n++ })
				must(t, err)
				if n != 1 {
					t.Errorf("%d pages after Stop, want 1", n)
				}
			})
		}
	}
}

func TestProcessMisuse(t *testing.T) {
	region, p := newProcess(t, 2, unix.MAP_PRIVATE, Options{})
	for _, bad := range [][]byte{nil, region[1:], region[:100], region[64 : 64+memory.PageSize]} {
		if _, err := NewProcess(bad, Options{}); !errors.Is(err, ErrBadRange) {
			t.Errorf("%d bytes: %v", len(bad), err)
		}
	}
	if _, err := p.Harvest(0, nil); !errors.Is(err, ErrState) {
		t.Errorf("harvest before arm: %v", err)
	}
	if err := p.Stop(); !errors.Is(err, ErrState) {
		t.Errorf("stop before arm: %v", err)
	}
	must(t, p.Arm())
	if err := p.Arm(); !errors.Is(err, ErrState) {
		t.Errorf("armed twice: %v", err)
	}
	must(t, p.Stop())
}
