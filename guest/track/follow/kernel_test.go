package follow

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/guest/track/abi"
	"github.com/fineline-vmm/fineline/guest/track/procmem"
)

// registry is a context that only knows what is registered.
type registry struct{ frames map[uint64]bool }

func (r *registry) set(ranges []abi.Range, to bool) error {
	for _, x := range ranges {
		for a := x.Address; a < x.Address+x.Bytes; a += PageBytes {
			r.frames[a/PageBytes] = to
		}
	}
	return nil
}

func (r *registry) Register(ranges []abi.Range) error   { return r.set(ranges, true) }
func (r *registry) Unregister(ranges []abi.Range) error { return r.set(ranges, false) }
func (r *registry) Start() error                        { return nil }
func (r *registry) Harvest(func(abi.Record)) error      { return nil }

// ownMemory maps memory with an aligned huge page's place in it, made of small pages.
func ownMemory(tb testing.TB, bytes int) ([]byte, Range) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("the kernel shows physical addresses to root only")
	}
	mem, err := unix.Mmap(-1, 0, bytes+hugeBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = unix.Munmap(mem) })
	skip := int(-addressOf(mem) & (hugeBytes - 1))
	aligned := mem[skip : skip+bytes]
	if err := unix.Madvise(aligned, unix.MADV_NOHUGEPAGE); err != nil {
		tb.Fatal(err)
	}
	for i := 0; i < bytes; i += PageBytes {
		aligned[i] = 1
	}
	return aligned, Range{addressOf(aligned), uint64(bytes)}
}

const (
	hugeBytes    = 2 << 20
	madvCollapse = 25 // MADV_COLLAPSE, since Linux 6.1
)

// TestTheKernelMovesPages follows locked memory of this process, which the kernel copies into a huge page.
func TestTheKernelMovesPages(t *testing.T) {
	mem, r := ownMemory(t, 2*hugeBytes)
	if err := unix.Mlock(mem); err != nil {
		t.Fatal(err)
	}
	table, err := procmem.OpenTable("self")
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	device := &registry{map[uint64]bool{}}
	f := NewFollower(table, device)
	if err := f.SetRanges([]Range{r}); err != nil {
		t.Fatal(err)
	}
	if err := f.Start(); err != nil {
		t.Fatal(err)
	}
	if report, err := f.Harvest(); err != nil || len(report.Pages) != 0 || report.Present != 1024 {
		t.Fatalf("in place: %+v, %v", report, err)
	}
	if err := unix.Madvise(mem[:hugeBytes], unix.MADV_HUGEPAGE); err != nil {
		t.Skipf("no huge pages: %v", err)
	}
	if err := unix.Madvise(mem[:hugeBytes], madvCollapse); err != nil {
		t.Skipf("this kernel does not collapse pages: %v", err)
	}
	report, err := f.Harvest()
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Pages) != 512 || report.Pages[0] != (Page{r.Address, AllLines, 0, Moved}) {
		t.Errorf("%d pages reported, want the 512 of the huge page", len(report.Pages))
	}
	entries := make([]procmem.Entry, 1024)
	if err := table.Read(r.Address, entries); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, on := range device.frames {
		if on {
			n++
		}
	}
	for i, e := range entries {
		if frame, ok := e.Frame(); !ok || !device.frames[frame] {
			t.Fatalf("page %d is in frame %d, which is not registered", i, frame)
		}
	}
	if n != 1024 {
		t.Errorf("%d frames are registered, want 1024", n)
	}
}

// BenchmarkKernelWindow is a window over 500 MiB of this process: what reading its page table costs.
func BenchmarkKernelWindow(b *testing.B) {
	const bytes = 500 << 20
	_, r := ownMemory(b, bytes)
	table, err := procmem.OpenTable("self")
	if err != nil {
		b.Fatal(err)
	}
	defer table.Close()
	f := NewFollower(table, &registry{map[uint64]bool{}})
	if err := f.SetRanges([]Range{r}); err != nil {
		b.Fatal(err)
	}
	if err := f.Start(); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(bytes)
	b.ResetTimer()
	for b.Loop() {
		if _, err := f.Harvest(); err != nil {
			b.Fatal(err)
		}
	}
}
