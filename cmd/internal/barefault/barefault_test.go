package barefault

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMeasure(t *testing.T) {
	const pages = 100
	took, err := Measure(pages)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(took) != pages {
		t.Fatalf("%d faults of %d", len(took), pages)
	}
	for i, d := range took {
		if d <= 0 {
			t.Errorf("fault %d took %v", i, d)
		}
	}
}

// TestEveryPageFaults: else it would be no fault that was measured.
func TestEveryPageFaults(t *testing.T) {
	f, err := openFaults(2)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	page := make([]byte, pageBytes)
	page[7] = 42
	served := make(chan error, 1)
	go func() { served <- f.serveAll(2, page) }()
	if _, err := f.touchAll(zeros(t)); err != nil {
		t.Fatal(err)
	}
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(f.bytes); at += pageBytes { // all is there now
		if f.bytes[at+7] != 42 {
			t.Errorf("the page at %d is not the one that was copied", at)
		}
	}
}

// zeros is a file to read a byte from.
func zeros(t *testing.T) int {
	t.Helper()
	fd, err := unix.Open("/dev/zero", unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}
