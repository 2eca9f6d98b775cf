package boot

import (
	"errors"
	"fmt"
	"io"

	"github.com/fineline-vmm/fineline/memory"
)

// streamBytes is the size of the one buffer that file contents pass through.
const streamBytes = 256 << 10

// readKernel fills p from the kernel file at off; the caller has checked the range against the file's size.
func (l *loader) readKernel(p []byte, off int64) error {
	return readFull(l.src.Kernel, p, off, "kernel")
}

// kernelTable reads a table whose place the file names, at most maxBytes, which is at most streamBytes. The
// result is valid until the next use of the buffer: a hostile file can name many tables, but not make them cost.
func (l *loader) kernelTable(off, sizeBytes, maxBytes uint64, name string) ([]byte, error) {
	if err := l.checkInFile(off, sizeBytes, name); err != nil {
		return nil, err
	}
	if sizeBytes > maxBytes {
		return nil, fmt.Errorf("%w: %s of %d bytes, at most %d are read", ErrFormat, name, sizeBytes, maxBytes)
	}
	p := l.buf[:sizeBytes]
	return p, l.readKernel(p, int64(off))
}

func (l *loader) checkInFile(off, sizeBytes uint64, name string) error {
	fileBytes := uint64(l.src.KernelSizeBytes)
	if sizeBytes == 0 {
		return nil // the offset of nothing may be anything
	}
	if off > fileBytes || sizeBytes > fileBytes-off {
		return fmt.Errorf("%w: the file is truncated: %s needs %d bytes at offset %d, the file has %d", ErrFormat, name, sizeBytes, off, fileBytes)
	}
	return nil
}

// stream copies sizeBytes of r at off to guest memory.
func (l *loader) stream(r io.ReaderAt, off, sizeBytes int64, to memory.GPA, name string) error {
	for sizeBytes > 0 {
		p := l.buf[:min(sizeBytes, int64(len(l.buf)))]
		if err := readFull(r, p, off, name); err != nil {
			return err
		}
		if err := l.mem.WriteAt(to, p); err != nil {
			return fmt.Errorf("load %s: %w", name, err)
		}
		n := int64(len(p))
		off, sizeBytes, to = off+n, sizeBytes-n, to+memory.GPA(n)
	}
	return nil
}

// readFull reads all of p. io.ReaderAt promises an error with a short read, of which io.EOF means that the
// file is shorter than the caller of Load said.
func readFull(r io.ReaderAt, p []byte, off int64, name string) error {
	n, err := r.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return fmt.Errorf("read %s at offset %d: %w", name, off+int64(n), io.ErrUnexpectedEOF)
	default:
		return fmt.Errorf("read %s at offset %d: %w", name, off+int64(n), err)
	}
}

// store is one structure for the guest.
type store struct {
	at    memory.GPA
	bytes []byte
}

func (l *loader) store(stores ...store) error {
	for _, s := range stores {
		if err := l.mem.WriteAt(s.at, s.bytes); err != nil {
			return fmt.Errorf("write boot information: %w", err)
		}
	}
	return nil
}

// writeCmdline stores text and its NUL; limitBytes is the kernel's own bound.
func (l *loader) writeCmdline(text string, limitBytes uint64) error {
	limitBytes = min(limitBytes, maxCmdlineBytes)
	if uint64(len(text)) > limitBytes {
		return fmt.Errorf("the kernel command line has %d bytes, this kernel takes %d", len(text), limitBytes)
	}
	return l.store(store{l.area + cmdlinePage, append([]byte(text), 0)})
}

// loadInitrd claims a place with find and copies the initrd there. Its size is 0 when there is none.
func (l *loader) loadInitrd(below uint64, find func(sizeBytes uint64) (uint64, bool)) (span, error) {
	const name = "the initrd"
	if l.src.Initrd == nil || l.src.InitrdSizeBytes <= 0 {
		return span{}, nil
	}
	sizeBytes := uint64(l.src.InitrdSizeBytes)
	start, ok := find(sizeBytes)
	if !ok {
		return span{}, fmt.Errorf("%w: the initrd has %d bytes, the largest free range below %#x has %d; give the guest more memory",
			ErrNoRoom, sizeBytes, below, l.room.largestFree(oneMiB, below))
	}
	s := span{start, start + sizeBytes, name}
	if err := l.room.claim(s); err != nil {
		return span{}, err
	}
	return s, l.stream(l.src.Initrd, 0, l.src.InitrdSizeBytes, memory.GPA(start), name)
}

// loadInitrdHigh puts the initrd as high as it may be, out of the way of whatever the kernel does with the
// memory behind itself.
func (l *loader) loadInitrdHigh(below uint64) (span, error) {
	return l.loadInitrd(below, func(sizeBytes uint64) (uint64, bool) {
		return l.room.highest(sizeBytes, oneMiB, below)
	})
}
