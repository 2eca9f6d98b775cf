package procmem

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// PageBytes is the size of a page.
const PageBytes = 4096

// Entry is what pagemap says of one page (Documentation/admin-guide/mm/pagemap.rst).
type Entry uint64

const (
	entryPresent   = 1 << 63
	entryFrameMask = 1<<55 - 1
	entryBytes     = 8
	readEntries    = 8192 // per system call
)

// Frame returns the page's frame number; not ok when it is in no frame.
func (e Entry) Frame() (frame uint64, ok bool) {
	if e&entryPresent == 0 {
		return 0, false
	}
	return uint64(e & entryFrameMask), true
}

// Present makes the entry of a page in a frame.
func Present(frame uint64) Entry { return entryPresent | Entry(frame) }

var (
	// ErrHiddenFrames: without CAP_SYS_ADMIN the kernel shows frame numbers as 0.
	ErrHiddenFrames = errors.New("the kernel hides physical addresses: CAP_SYS_ADMIN is needed (run as root, or use the daemon)")
	// ErrGone: the process has ended, or runs another program now.
	ErrGone = errors.New("the process has ended or executes another program")
)

// Table is the page table of one address space. It is for one goroutine.
type Table struct {
	file *os.File
	buf  []byte
}

// OpenTable opens the page table of a process, by number or "self".
func OpenTable(pid string) (*Table, error) {
	f, err := os.Open(filepath.Join("/proc", pid, "pagemap"))
	if err != nil {
		return nil, opened(err)
	}
	return &Table{file: f, buf: make([]byte, readEntries*entryBytes)}, nil
}

// Read fills entries with those of consecutive pages, from the page of address on.
func (t *Table) Read(address uint64, entries []Entry) error {
	at := int64(address / PageBytes * entryBytes)
	for len(entries) > 0 {
		n := min(len(entries), readEntries)
		if err := t.read(at, entries[:n]); err != nil {
			return err
		}
		entries, at = entries[n:], at+int64(n*entryBytes)
	}
	return nil
}

func (t *Table) read(at int64, entries []Entry) error {
	buf := t.buf[:len(entries)*entryBytes]
	switch n, err := t.file.ReadAt(buf, at); {
	case n == 0 && errors.Is(err, io.EOF), errors.Is(err, unix.ESRCH):
		return ErrGone
	case err != nil:
		return fmt.Errorf("pagemap: %w", err)
	}
	for i := range entries {
		e := Entry(binary.LittleEndian.Uint64(buf[i*entryBytes:]))
		// Frame 0 is never given to a process.
		if e&entryPresent != 0 && e&entryFrameMask == 0 {
			return ErrHiddenFrames
		}
		entries[i] = e
	}
	return nil
}

// Close closes the descriptor.
func (t *Table) Close() error { return t.file.Close() }

// opened makes the errors of opening a file of /proc/PID say what they mean.
func opened(err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	return err
}
