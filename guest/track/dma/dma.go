package dma

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/guest/track/procmem"
)

// PageBytes is the size of a Page.
const PageBytes = 4096

// Page is one page of memory at a physical address. Its pages need not be neighbours.
type Page struct {
	Bytes    []byte // PageBytes
	Physical uint64
}

// Memory is pinned pages. They belong to it: no Page may be used after Close.
type Memory struct {
	Pages []Page

	close func() error
}

// ErrCannotPin: this kernel gives an unprivileged way to pin memory to no one.
var ErrCannotPin = errors.New("cannot pin memory for the device")

// hugePageBytes is the size of the huge page that stands in for pins.
const hugePageBytes = 2 << 20

// Alloc returns n zeroed pages with physical addresses. It needs CAP_SYS_ADMIN, for /proc/self/pagemap.
func Alloc(n int) (*Memory, error) {
	m, pinErr := allocPinned(n)
	if pinErr == nil {
		return m, nil
	}
	if errors.Is(pinErr, procmem.ErrHiddenFrames) {
		return nil, pinErr
	}
	m, err := allocHuge(n)
	if err != nil {
		return nil, fmt.Errorf("%w: %w; and no huge page: %w (allow io_uring by sysctl kernel.io_uring_disabled=0, or reserve one by sysctl vm.nr_hugepages=1)",
			ErrCannotPin, pinErr, err)
	}
	return m, nil
}

// allocPinned pins ordinary memory by registering it with an io_uring.
func allocPinned(n int) (*Memory, error) {
	mem, err := mapMemory(n*PageBytes, 0)
	if err != nil {
		return nil, err
	}
	ring, err := pin(mem)
	if err != nil {
		return nil, errors.Join(err, unix.Munmap(mem))
	}
	return describe(mem, n, func() error { return errors.Join(unix.Close(ring), unix.Munmap(mem)) })
}

// allocHuge takes one huge page of the reserved pool.
func allocHuge(n int) (*Memory, error) {
	if n*PageBytes > hugePageBytes {
		return nil, fmt.Errorf("%d pages are more than a huge page", n)
	}
	mem, err := mapMemory(hugePageBytes, unix.MAP_HUGETLB|21<<unix.MAP_HUGE_SHIFT)
	if err != nil {
		return nil, err
	}
	if err := unix.Mlock(mem); err != nil {
		return nil, errors.Join(err, unix.Munmap(mem))
	}
	return describe(mem, n, func() error { return unix.Munmap(mem) })
}

// mapMemory returns touched memory that forks do not get.
func mapMemory(bytes, flags int) ([]byte, error) {
	mem, err := unix.Mmap(-1, 0, bytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE|flags)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", bytes, err)
	}
	if err := unix.Madvise(mem, unix.MADV_DONTFORK); err != nil {
		return nil, errors.Join(fmt.Errorf("keep memory from forks: %w", err), unix.Munmap(mem))
	}
	clear(mem) // populated is not yet written to: a read-only zero page has no place of its own
	return mem, nil
}

// describe looks up where the memory is, now that it cannot move. It frees it on errors.
func describe(mem []byte, n int, free func() error) (*Memory, error) {
	table, err := procmem.OpenTable("self")
	if err != nil {
		return nil, errors.Join(err, free())
	}
	defer table.Close()
	entries := make([]procmem.Entry, n)
	if err := table.Read(addressOf(mem), entries); err != nil {
		return nil, errors.Join(err, free())
	}
	m := &Memory{close: sync.OnceValue(free)}
	for i, e := range entries {
		frame, ok := e.Frame()
		if !ok {
			return nil, errors.Join(fmt.Errorf("pinned memory is not present (pagemap says %#x)", uint64(e)), free())
		}
		m.Pages = append(m.Pages, Page{Bytes: mem[i*PageBytes : (i+1)*PageBytes : (i+1)*PageBytes], Physical: frame * PageBytes})
	}
	return m, nil
}

// Close frees the memory. The device must have been reset before.
func (m *Memory) Close() error { return m.close() }
