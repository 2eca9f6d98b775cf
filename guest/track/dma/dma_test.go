package dma

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/guest/track/procmem"
)

func alloc(t *testing.T, from func(int) (*Memory, error), n int) *Memory {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("the kernel shows physical addresses to root only")
	}
	m, err := from(n)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		t.Skipf("no io_uring here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func TestAlloc(t *testing.T) {
	m := alloc(t, Alloc, 3)
	seen := map[uint64]bool{}
	for i, p := range m.Pages {
		p.Bytes[7] = byte(i + 1)
		if len(p.Bytes) != PageBytes || cap(p.Bytes) != PageBytes || p.Physical == 0 || p.Physical%PageBytes != 0 || seen[p.Physical] {
			t.Errorf("page %d: %d bytes at %#x", i, len(p.Bytes), p.Physical)
		}
		if got := p.Load32(4); got != uint32(i+1)<<24 {
			t.Errorf("page %d holds %#x", i, got)
		}
		seen[p.Physical] = true
	}
}

const madvCollapse = 25 // MADV_COLLAPSE, since Linux 6.1: copies small pages into a huge one

// TestPinnedPagesStay asks the kernel to move pages: those that are only locked go, pinned ones stay.
func TestPinnedPagesStay(t *testing.T) {
	const n = 2 * hugePageBytes / PageBytes // holds an aligned huge page
	withoutHugePages := func(from func(int) (*Memory, error)) *Memory {
		if err := unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0); err != nil {
			t.Skipf("no say over huge pages: %v", err)
		}
		defer func() { _ = unix.Prctl(unix.PR_SET_THP_DISABLE, 0, 0, 0, 0) }()
		return alloc(t, from, n)
	}
	locked := withoutHugePages(func(n int) (*Memory, error) {
		mem, err := mapMemory(n*PageBytes, 0)
		if err != nil {
			return nil, err
		}
		if err := unix.Mlock(mem); err != nil {
			return nil, err
		}
		return describe(mem, n, func() error { return unix.Munmap(mem) })
	})
	pinned := withoutHugePages(allocPinned)
	if moved, err := collapse(t, locked); moved == 0 {
		t.Skipf("this kernel does not collapse pages: %v", err)
	}
	if moved, _ := collapse(t, pinned); moved != 0 {
		t.Errorf("%d pinned pages moved", moved)
	}
}

// collapse asks for a huge page in the middle of m and returns how many pages are elsewhere then.
func collapse(t *testing.T, m *Memory) (moved int, err error) {
	t.Helper()
	first := int(hugePageBytes-addressOf(m.Pages[0].Bytes)%hugePageBytes) / PageBytes % (hugePageBytes / PageBytes)
	start := m.Pages[first].Bytes
	err = madvise(start, hugePageBytes, madvCollapse)
	entries := make([]procmem.Entry, len(m.Pages))
	table, openErr := procmem.OpenTable("self")
	if openErr != nil {
		t.Fatal(openErr)
	}
	defer table.Close()
	if err := table.Read(addressOf(m.Pages[0].Bytes), entries); err != nil {
		t.Fatal(err)
	}
	for i, e := range entries {
		if frame, ok := e.Frame(); !ok || frame*PageBytes != m.Pages[i].Physical {
			moved++
		}
	}
	return moved, err
}

func madvise(start []byte, bytes, advice int) error {
	_, _, errno := unix.Syscall(unix.SYS_MADVISE, uintptr(addressOf(start)), uintptr(bytes), uintptr(advice))
	if errno != 0 {
		return errno
	}
	return nil
}
