package memory

import (
	"fmt"
	"runtime"
)

// ReadAt copies len(p) bytes of RAM at gpa to p. The range may cross regions
// that touch; when a part is not RAM the error wraps ErrOutOfRange and p is
// unchanged. Bytes that others store meanwhile are read old or new, one by one;
// use the ordered loads for what has a meaning as a unit.
func (g *Guest) ReadAt(gpa GPA, p []byte) error {
	if err := g.check(gpa, len(p)); err != nil {
		return err
	}
	for len(p) > 0 {
		i, off, n := g.piece(gpa, len(p))
		copy(p[:n], g.rams[i].bytes(off, n))
		gpa, p = gpa+GPA(n), p[n:]
	}
	runtime.KeepAlive(g) // the mapping lives as long as g, see Close
	return nil
}

// WriteAt copies p to RAM at gpa and marks the pages dirty. The range may cross
// regions that touch; when a part is not RAM the error wraps ErrOutOfRange and
// nothing is written. Others see the bytes arrive in any order.
func (g *Guest) WriteAt(gpa GPA, p []byte) error {
	return g.write(gpa, p, g.mark)
}

func (g *Guest) write(gpa GPA, p []byte, mark func(region int, off, n uint64)) error {
	if err := g.check(gpa, len(p)); err != nil {
		return err
	}
	for len(p) > 0 {
		i, off, n := g.piece(gpa, len(p))
		copy(g.rams[i].bytes(off, n), p)
		mark(i, off, n)
		gpa, p = gpa+GPA(n), p[n:]
	}
	runtime.KeepAlive(g)
	return nil
}

// WriteGuestStore is WriteAt for a store of the guest that the hypervisor could not do
// itself: the observer, who saw it coming, is not told.
func (g *Guest) WriteGuestStore(gpa GPA, p []byte) error {
	return g.write(gpa, p, g.markPages)
}

// ViewPage calls fn with the page at gpa, a multiple of PageSize, without a
// copy. fn must neither store to page nor keep it, and must expect its bytes
// to change under it: read once what a decision and an action both rest on.
// When the Guest is closed meanwhile, page reads as zeros.
func (g *Guest) ViewPage(gpa GPA, fn func(page []byte)) error {
	if gpa%PageSize != 0 {
		return fmt.Errorf("%w: page at %#x", ErrMisaligned, uint64(gpa))
	}
	if err := g.check(gpa, PageSize); err != nil {
		return err
	}
	i, off, n := g.piece(gpa, PageSize)
	fn(g.rams[i].bytes(off, n))
	runtime.KeepAlive(g)
	return nil
}

// TryViewPage is ViewPage that does not wait: it reports false, and fn is not called, when the page is missing.
func (g *Guest) TryViewPage(gpa GPA, fn func(page []byte)) (bool, error) {
	if d := g.demand.Load(); d != nil && g.layout.contains(gpa, 1) && d.hidden.has(g.place(gpa)) {
		return false, nil
	}
	err := g.ViewPage(gpa, fn)
	return err == nil, err
}

// EditPage lends fn the page at gpa, a multiple of PageSize, for writing, and marks it dirty, also when
// fn fails; its error is returned. fn must not keep page, and must expect that others read and write it.
func (g *Guest) EditPage(gpa GPA, fn func(page []byte) error) error {
	var failed error
	err := g.ViewPage(gpa, func(page []byte) {
		failed = fn(page)
		region, off, n := g.piece(gpa, PageSize)
		g.mark(region, off, n)
	})
	if err != nil {
		return err
	}
	return failed
}

// check admits an access to n bytes at gpa; no bytes are always RAM. It waits for what is missing.
func (g *Guest) check(gpa GPA, n int) error {
	if g.closed.Load() {
		return ErrClosed
	}
	if n == 0 {
		return nil
	}
	if !g.layout.contains(gpa, uint64(n)) {
		return fmt.Errorf("%w: %d bytes at %#x", ErrOutOfRange, n, uint64(gpa))
	}
	if d := g.demand.Load(); d != nil {
		return d.await(gpa, n)
	}
	return nil
}

// piece returns the first part, inside one region, of an admitted access to n
// bytes at gpa: the region, the offset in it and the number of bytes.
func (g *Guest) piece(gpa GPA, n int) (region int, off, size uint64) {
	region = g.layout.find(gpa)
	s := &g.layout.spans[region]
	off = uint64(gpa - s.Base)
	return region, off, min(uint64(n), s.SizeBytes-off)
}

// word admits an ordered access to one naturally aligned word of n bytes,
// a power of two; region and off are its place.
func (g *Guest) word(gpa GPA, n uint64) (region int, off uint64, err error) {
	if g.closed.Load() {
		return 0, 0, ErrClosed
	}
	if uint64(gpa)&(n-1) != 0 {
		return 0, 0, fmt.Errorf("%w: %d bytes at %#x", ErrMisaligned, n, uint64(gpa))
	}
	// Regions are whole pages, so an aligned word that begins in one ends in it.
	region = g.layout.find(gpa)
	if region < 0 {
		return 0, 0, fmt.Errorf("%w: %d bytes at %#x", ErrOutOfRange, n, uint64(gpa))
	}
	if d := g.demand.Load(); d != nil {
		if err := d.await(gpa, 1); err != nil {
			return 0, 0, err
		}
	}
	return region, uint64(gpa - g.layout.spans[region].Base), nil
}
