package barefault

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
)

const (
	pageBytes   = 4096
	warmUpPages = 64
)

// Measure touches so many missing pages one after the other, and returns how long each took.
func Measure(pages int) ([]time.Duration, error) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	runtime.GC() // none is under way now
	f, err := openFaults(warmUpPages + pages)
	if err != nil {
		return nil, err
	}
	defer f.close()
	source, err := unix.MemfdCreate("barefault-source", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(source)
	if err := unix.Ftruncate(source, pageBytes); err != nil {
		return nil, err
	}
	served := make(chan error, 1)
	go func() { served <- f.serveAll(warmUpPages+pages, make([]byte, pageBytes)) }()
	took, err := f.touchAll(source)
	if err = errors.Join(err, <-served); err != nil {
		return nil, err
	}
	return took[warmUpPages:], nil
}

// serveAll copies page to so many faults. An error ends all service, and wakes who touches.
func (f *faults) serveAll(pages int, page []byte) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for range pages {
		if err := f.serve(page); err != nil {
			_ = unix.Close(f.fd)
			f.fd = -1
			return err
		}
	}
	return nil
}

// touchAll lets the kernel store a byte into each page.
func (f *faults) touchAll(source int) ([]time.Duration, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	took := make([]time.Duration, 0, len(f.bytes)/pageBytes)
	for at := 0; at < len(f.bytes); at += pageBytes {
		start := time.Now()
		n, err := unix.Pread(source, f.bytes[at:at+1], 0)
		took = append(took, time.Since(start))
		if n != 1 || err != nil {
			return nil, fmt.Errorf("touch a missing page: %d bytes: %w", n, err)
		}
	}
	return took, nil
}
