package memory

import (
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// vcpu is a thread that touches guest memory inside a system call, as KVM_RUN does.
type vcpu struct {
	t    testing.TB
	g    *Guest
	pipe [2]int
}

func newVCPU(t testing.TB, g *Guest) *vcpu {
	c := &vcpu{t: t, g: g}
	if err := unix.Pipe2(c.pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(c.pipe[0]); unix.Close(c.pipe[1]) })
	return c
}

func (c *vcpu) addr(gpa GPA) unsafe.Pointer {
	p := c.g.place(gpa)
	return unsafe.Add(c.g.rams[p.region].guest, p.off+uint64(gpa%PageSize))
}

func (c *vcpu) transfer(trap uintptr, fd int, at unsafe.Pointer) unix.Errno {
	for {
		n, _, errno := unix.Syscall(trap, uintptr(fd), uintptr(at), 8)
		if errno == 0 && n != 8 {
			c.t.Errorf("%d bytes", n)
		}
		if errno != unix.EINTR {
			return errno
		}
	}
}

// load reads a word as guest code would.
func (c *vcpu) load(gpa GPA) (v uint64, errno unix.Errno) {
	if errno := c.transfer(unix.SYS_WRITE, c.pipe[1], c.addr(gpa)); errno != 0 {
		return 0, errno
	}
	return v, c.transfer(unix.SYS_READ, c.pipe[0], unsafe.Pointer(&v))
}

// store writes a word as guest code would.
func (c *vcpu) store(gpa GPA, v uint64) unix.Errno {
	if errno := c.transfer(unix.SYS_WRITE, c.pipe[1], unsafe.Pointer(&v)); errno != 0 {
		return errno
	}
	return c.transfer(unix.SYS_READ, c.pipe[0], c.addr(gpa))
}

// lockedThread runs fn on a thread that ends with it.
func lockedThread(fn func()) {
	runtime.LockOSThread()
	fn()
}

// hideFrom puts a mapping of something else in the place of a page of the guest's, so that the page can't be shown.
func hideFrom(t testing.TB, g *Guest, gpa GPA) {
	t.Helper()
	p := g.place(gpa)
	at := unsafe.Add(g.rams[p.region].guest, p.off)
	_, err := unix.MmapPtr(-1, 0, at, PageSize, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED)
	if err != nil {
		t.Fatal(err)
	}
}

// walk has the kernel look up the pages from gpa on as KVM does for a guest that touches them, but all in one go. The last one
// is then forgotten, and will fault again.
func (c *vcpu) walk(gpa GPA, pages int) error {
	b := unsafe.Slice((*byte)(c.addr(gpa)), pages*PageSize)
	if err := unix.Madvise(b, unix.MADV_POPULATE_READ); err != nil {
		return err
	}
	return unix.Madvise(b[len(b)-PageSize:], unix.MADV_DONTNEED)
}
