package memory

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// LendFiles calls fn with the descriptors of the RAM, one a region in their order, for another process
// to make a Guest of by NewFromFiles. fn must neither keep nor close them. What the two processes do to the
// RAM is then between them: no lock and no dirty mark of this Guest knows of the other.
func (g *Guest) LendFiles(fn func(fds []int) error) error {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.closed.Load() {
		return ErrClosed
	}
	fds := make([]int, len(g.rams))
	for i := range g.rams {
		fds[i] = g.rams[i].fd
	}
	return fn(fds)
}

// NewFromFiles makes a Guest of RAM that another Guest has lent, with its content: regions as that one's, a
// descriptor for each in the order of their addresses. It takes the descriptors, and closes them also when it
// fails. They may come from anybody: what is not a memfd of the right size that can neither shrink nor be
// sealed against writing is refused with ErrBadFiles. No page is touched. Closing one of the two Guests leaves
// the RAM to the other.
func NewFromFiles(regions []Region, fds []int, opts Options) (*Guest, error) {
	l, err := newLayout(regions)
	var b backing
	if err == nil {
		b, err = checkFiles(l, fds, opts)
	}
	if err != nil {
		return nil, errors.Join(err, CloseFiles(fds))
	}
	g := newBare(l)
	for i, fd := range fds {
		m, err := mapRAM(l.spans[i].Region, fd, b) // closes fd when it fails
		if err != nil {
			return nil, errors.Join(err, CloseFiles(fds[i+1:]), g.Close())
		}
		g.rams = append(g.rams, m)
	}
	return g, nil
}

// CloseFiles closes descriptors that were received and are not wanted.
func CloseFiles(fds []int) error {
	var errs []error
	for _, fd := range fds {
		if err := unix.Close(fd); err != nil {
			errs = append(errs, fmt.Errorf("close a memory file: %w", err))
		}
	}
	return errors.Join(errs...)
}

// fileID tells files apart.
type fileID struct{ device, inode uint64 }

// checkFiles judges descriptors from another process and returns what is behind them.
func checkFiles(l *layout, fds []int, opts Options) (b backing, err error) {
	if len(fds) != len(l.spans) {
		return 0, fmt.Errorf("%w: %d files for %d regions", ErrBadFiles, len(fds), len(l.spans))
	}
	seen := map[fileID]bool{}
	for i, fd := range fds {
		region := l.spans[i].Region
		id, pool, err := checkFile(fd, region.SizeBytes)
		if err == nil && seen[id] {
			err = errors.New("it is the same file as another region's")
		}
		if err == nil && i > 0 && pool != (b == backingPool) {
			err = errors.New("some files are of huge pages and some are not")
		}
		if err == nil && pool && !opts.HugePages {
			err = errors.New("it is of huge pages, and the machine is not")
		}
		if err != nil {
			return 0, fmt.Errorf("%w: file %d, for %d bytes at %#x: %w", ErrBadFiles, i, region.SizeBytes, uint64(region.Base), err)
		}
		seen[id] = true
		switch {
		case pool:
			b = backingPool
		case opts.HugePages:
			b = backingTransparent
		}
	}
	return b, nil
}

// checkFile judges one; pool says that it is of the host's huge pages.
func checkFile(fd int, sizeBytes uint64) (id fileID, pool bool, err error) {
	// First what only shared memory has: a pipe or a file on a disk fails here.
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return id, false, fmt.Errorf("it is not a memfd: %w", err)
	}
	var status unix.Stat_t
	var system unix.Statfs_t
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err = errors.Join(err, unix.Fstat(fd, &status), unix.Fstatfs(fd, &system)); err != nil {
		return id, false, err
	}
	pool = system.Type == unix.HUGETLBFS_MAGIC
	// What could shrink would turn an access into SIGBUS, and what cannot be sealed any more stays as it is.
	const wanted, unwanted = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL, unix.F_SEAL_WRITE | unix.F_SEAL_FUTURE_WRITE
	switch {
	case seals&wanted != wanted || seals&unwanted != 0:
		err = fmt.Errorf("its seals are %#x: its size must be sealed, its content not, and no seal may be added", seals)
	case status.Size < 0 || uint64(status.Size) != sizeBytes:
		err = fmt.Errorf("it has %d bytes", status.Size)
	case flags&unix.O_ACCMODE != unix.O_RDWR:
		err = errors.New("it is not open for reading and writing")
	case pool && system.Bsize != hugePageSize:
		err = fmt.Errorf("its pages have %d bytes; huge pages here have %d", system.Bsize, hugePageSize)
	}
	return fileID{status.Dev, status.Ino}, pool, err
}
