package track

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/memory"
)

// From linux/userfaultfd.h and linux/fs.h.
const (
	uffdAPI            = 0xaa
	uffdUserModeOnly   = 1 // flag of the system call: allowed to everybody
	featureShmem       = 1 << 12
	featureUnpopulated = 1 << 13
	featureAsync       = 1 << 15
	registerWP         = 1 << 1

	ioctlAPI        = 0xc018aa3f
	ioctlRegister   = 0xc020aa00
	ioctlUnregister = 0x8010aa01
	ioctlScan       = 0xc0606610

	scanProtect    = 1 << 0 // PM_SCAN_WP_MATCHING
	scanCheckAsync = 1 << 1
	pageIsWritten  = 1 << 1
)

// The fields that are not used here are _.

type uffdAPIArg struct{ api, features, _ uint64 }

type uffdRegisterArg struct{ start, len, mode, _ uint64 }

type uffdRange struct{ start, len uint64 }

type scanArg struct {
	size, flags, start, end, walkEnd, vec, vecLen, _ uint64
	_, mask, _, returned                             uint64
}

type pageRegion struct{ start, end, categories uint64 }

// Their sizes are part of the ioctl numbers.
var (
	_ [24]byte = [unsafe.Sizeof(uffdAPIArg{})]byte{}
	_ [32]byte = [unsafe.Sizeof(uffdRegisterArg{})]byte{}
	_ [16]byte = [unsafe.Sizeof(uffdRange{})]byte{}
	_ [96]byte = [unsafe.Sizeof(scanArg{})]byte{}
	_ [24]byte = [unsafe.Sizeof(pageRegion{})]byte{}
)

// errNoScan: this kernel has no asynchronous write-protection.
var errNoScan = errors.New("no asynchronous write-protection")

// pageScan is asynchronous write-protection of a region. Zero is not started.
type pageScan struct {
	uffd    int
	pagemap *os.File     // nil: not started
	regions []pageRegion // on the heap: the kernel fills it
}

func (s *pageScan) open() bool { return s.pagemap != nil }

func address(region []byte) uint64 {
	return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(region))))
}

func ioctl[T any](fd int, request uintptr, arg *T) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(arg)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// start registers region; an error that wraps errNoScan says that the kernel cannot.
func (s *pageScan) start(region []byte) error {
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|uffdUserModeOnly, 0, 0)
	if errno != 0 {
		return fmt.Errorf("%w: userfaultfd: %w", errNoScan, errno)
	}
	s.uffd = int(fd)
	if _, err := ioctl(s.uffd, ioctlAPI, &uffdAPIArg{api: uffdAPI, features: featureAsync | featureUnpopulated | featureShmem}); err != nil {
		return errors.Join(fmt.Errorf("%w: UFFDIO_API: %w", errNoScan, err), unix.Close(s.uffd))
	}
	if _, err := ioctl(s.uffd, ioctlRegister, &uffdRegisterArg{start: address(region), len: uint64(len(region)), mode: registerWP}); err != nil {
		return errors.Join(fmt.Errorf("UFFDIO_REGISTER %d bytes for write-protection: %w", len(region), err), unix.Close(s.uffd))
	}
	pagemap, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return errors.Join(err, unix.Close(s.uffd))
	}
	s.pagemap, s.regions = pagemap, make([]pageRegion, 512)
	return nil
}

// take calls fn with the offset of each page that was written since it was protected, after
// protecting it again.
func (s *pageScan) take(region []byte, fn func(at memory.GPA)) error {
	base := address(region)
	end := base + uint64(len(region))
	for at := base; at < end; {
		arg := scanArg{
			size: uint64(unsafe.Sizeof(scanArg{})), flags: scanProtect | scanCheckAsync, start: at, end: end,
			vec: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(s.regions)))), vecLen: uint64(len(s.regions)),
			mask: pageIsWritten, returned: pageIsWritten,
		}
		n, err := ioctl(int(s.pagemap.Fd()), ioctlScan, &arg)
		if err != nil {
			return fmt.Errorf("PAGEMAP_SCAN: %w", err)
		}
		for _, r := range s.regions[:n] {
			for page := r.start; page < r.end; page += memory.PageSize {
				fn(memory.GPA(page - base))
			}
		}
		at = arg.walkEnd
	}
	return nil
}

func (s *pageScan) stop(region []byte) error {
	if !s.open() {
		return nil
	}
	_, err := ioctl(s.uffd, ioctlUnregister, &uffdRange{address(region), uint64(len(region))})
	err = errors.Join(err, s.pagemap.Close(), unix.Close(s.uffd))
	*s = pageScan{}
	return err
}
