package memory

import (
	"errors"
	"fmt"
	"math"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ram is one region's memfd with its two mappings.
type ram struct {
	fd        int
	backing   backing
	sizeBytes uint64
	guest     unsafe.Pointer // for the hypervisor
	vmm       unsafe.Pointer // for the accessors
}

// newRAM makes the memory of one region.
func newRAM(r Region, b backing) (ram, error) {
	name := fmt.Sprintf("fineline-ram-%#x", uint64(r.Base))
	fd, err := newMemfd(name, r.SizeBytes, b)
	if err != nil {
		return ram{}, fmt.Errorf("create guest memory of %d bytes at %#x: %w", r.SizeBytes, uint64(r.Base), err)
	}
	return mapRAM(r, fd, b)
}

// mapRAM maps the memory of one region; it takes fd.
func mapRAM(r Region, fd int, b backing) (_ ram, err error) {
	m := ram{fd: fd, backing: b, sizeBytes: r.SizeBytes}
	if m.guest, err = m.mapShared(nil, fd); err == nil {
		m.vmm, err = m.mapShared(nil, fd)
	}
	if err == nil {
		err = errors.Join(m.advise(m.guest), m.advise(m.vmm))
	}
	if err != nil {
		err = fmt.Errorf("map guest memory of %d bytes at %#x: %w", r.SizeBytes, uint64(r.Base), err)
		return ram{}, errors.Join(err, m.unmap(m.guest), m.unmap(m.vmm), unix.Close(fd))
	}
	return m, nil
}

// newMemfd returns an empty memfd of the given size that keeps this size: a
// process that gets the descriptor one day cannot shrink it under our feet, which
// would turn a load into SIGBUS.
func newMemfd(name string, sizeBytes uint64, b backing) (int, error) {
	if sizeBytes > math.MaxInt64 {
		return -1, unix.EFBIG
	}
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	if b == backingPool {
		flags |= unix.MFD_HUGETLB | unix.MFD_HUGE_2MB
	}
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return -1, os.NewSyscallError("memfd_create", err)
	}
	if err := unix.Ftruncate(fd, int64(sizeBytes)); err != nil {
		return -1, errors.Join(os.NewSyscallError("ftruncate", err), unix.Close(fd))
	}
	// Not F_SEAL_WRITE, which forbids hole punching; F_SEAL_SEAL so that nobody
	// else adds it.
	seals := unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return -1, errors.Join(os.NewSyscallError("fcntl(F_ADD_SEALS)", err), unix.Close(fd))
	}
	return fd, nil
}

// mapShared maps all of fd, at addr if that is not nil, in place of what is
// there.
func (m *ram) mapShared(addr unsafe.Pointer, fd int) (unsafe.Pointer, error) {
	flags := unix.MAP_SHARED
	if m.backing != backingPool {
		// The pool's pages are reserved by the mapping, so that a shortage is an
		// error here and not SIGBUS at a touch.
		flags |= unix.MAP_NORESERVE
	}
	if addr != nil {
		flags |= unix.MAP_FIXED
	}
	p, err := unix.MmapPtr(fd, 0, addr, uintptr(m.sizeBytes), unix.PROT_READ|unix.PROT_WRITE, flags)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	return p, nil
}

// advise tells the kernel how a mapping is used.
func (m *ram) advise(p unsafe.Pointer) error {
	b := unsafe.Slice((*byte)(p), m.sizeBytes)
	// A core dump of the VMM must hold neither the guest's secrets nor its size.
	err := unix.Madvise(b, unix.MADV_DONTDUMP)
	if err == nil && m.backing == backingTransparent {
		err = unix.Madvise(b, unix.MADV_HUGEPAGE)
	}
	return os.NewSyscallError("madvise", err)
}

// unmap removes one of the mappings; nil is none.
func (m *ram) unmap(p unsafe.Pointer) error {
	if p == nil {
		return nil
	}
	return os.NewSyscallError("munmap", unix.MunmapPtr(p, uintptr(m.sizeBytes)))
}

func (m *ram) guestAddr() uintptr { return uintptr(m.guest) }

// bytes returns n bytes of the VMM's mapping; it must not leave the package
// (design law 7).
func (m *ram) bytes(off, n uint64) []byte {
	return unsafe.Slice((*byte)(unsafe.Add(m.vmm, off)), n)
}

// punch makes the region a hole.
func (m *ram) punch() error {
	err := unix.Fallocate(m.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, int64(m.sizeBytes))
	if err != nil {
		return os.NewSyscallError("fallocate", err)
	}
	if m.backing != backingPool {
		return nil
	}
	// A hole in pool memory has lost its reservation; a new mapping of the file
	// takes it again, for the file, or fails.
	p, err := m.mapShared(nil, m.fd)
	if err != nil {
		return fmt.Errorf("reserve huge pages again: %w", err)
	}
	return m.unmap(p)
}

// rangeData calls fn with the parts that are not holes.
func (m *ram) rangeData(fn func(off, end uint64)) error {
	for off := uint64(0); off < m.sizeBytes; {
		start, err := m.nextData(off)
		if err != nil || start == m.sizeBytes {
			return err
		}
		end, err := unix.Seek(m.fd, int64(start), unix.SEEK_HOLE)
		if errors.Is(err, unix.ENXIO) || (err == nil && uint64(end) <= start) {
			end, err = int64(start)+PageSize, nil // punched in between: not empty is a safe answer
		}
		if err != nil {
			return os.NewSyscallError("lseek(SEEK_HOLE)", err)
		}
		off = min(uint64(end), m.sizeBytes)
		fn(start, off)
	}
	return nil
}

// nextData returns where the first part begins that is not a hole, at off or behind it; the size if there is none.
func (m *ram) nextData(off uint64) (uint64, error) {
	start, err := unix.Seek(m.fd, int64(off), unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return m.sizeBytes, nil
	}
	if err != nil {
		return 0, os.NewSyscallError("lseek(SEEK_DATA)", err)
	}
	return min(uint64(start), m.sizeBytes), nil
}

// free gives the memory back, but leaves the VMM's mapping readable and
// writable, on an empty memfd, for accesses under way; see unmapAll.
func (m *ram) free() error {
	errs := []error{m.unmap(m.guest), os.NewSyscallError("close", unix.Close(m.fd))}
	fd, err := newMemfd("fineline-closed", m.sizeBytes, backingPages)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	blank := ram{backing: backingPages, sizeBytes: m.sizeBytes}
	_, err = blank.mapShared(m.vmm, fd)
	return errors.Join(append(errs, err, unix.Close(fd))...)
}

// unmapAll removes what free left, once no access can be under way.
func unmapAll(rams []ram) {
	for i := range rams {
		// Fails only if the range is not ours, and then there is nobody to tell.
		_ = rams[i].unmap(rams[i].vmm)
	}
}
