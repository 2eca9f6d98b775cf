package memory

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// lent returns copies of a Guest's descriptors, as another process would have got them.
func lent(t testing.TB, g *Guest) []int {
	t.Helper()
	var out []int
	err := g.LendFiles(func(fds []int) error {
		for _, fd := range fds {
			out = append(out, dup(t, fd))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func dup(t testing.TB, fd int) int {
	t.Helper()
	copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return copied
}

// openFiles counts this process's descriptors.
func openFiles(t testing.TB) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// TestLentFiles: two Guests on the same RAM, each with a life and dirty marks of its own.
func TestLentFiles(t *testing.T) {
	for _, opts := range []Options{{}, {HugePages: true}} {
		t.Run(fmt.Sprintf("%+v", opts), func(t *testing.T) {
			regions := []Region{{Base: 1 << 32, SizeBytes: 2 * hugePageSize}, {Base: 0, SizeBytes: hugePageSize}}
			g, err := New(regions, opts)
			if errors.Is(err, ErrNoHugePages) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := g.StoreUint64(1<<32+8, 7); err != nil {
				t.Fatal(err)
			}
			o, err := NewFromFiles(regions, lent(t, g), opts)
			if err != nil {
				t.Fatal(err)
			}
			defer o.Close()
			if o.rams[0].backing != g.rams[0].backing {
				t.Errorf("backing %d was %d", o.rams[0].backing, g.rams[0].backing)
			}
			if v, err := o.LoadUint64(1<<32 + 8); v != 7 || err != nil {
				t.Errorf("%d, %v", v, err)
			}
			tr, _ := started(t, g)
			if err := o.StoreUint64(PageSize, 9); err != nil {
				t.Fatal(err)
			}
			if v, err := g.LoadUint64(PageSize); v != 9 || err != nil {
				t.Errorf("%d, %v", v, err)
			}
			marked := g.NewPageSet()
			if err := tr.Collect(marked); err != nil {
				t.Fatal(err)
			}
			wantPages(t, "another's store", marked)
			if opts == (Options{}) {
				data, err := o.DataPages()
				if err != nil {
					t.Fatal(err)
				}
				wantPages(t, "data", data, PageSize, 1<<32)
			}
			if err := g.Close(); err != nil {
				t.Fatal(err)
			}
			for gpa, want := range map[GPA]uint64{1<<32 + 8: 7, PageSize: 9} {
				if v, err := o.LoadUint64(gpa); v != want || err != nil {
					t.Errorf("after the other's Close: %d, %v", v, err)
				}
			}
			if err := g.LendFiles(func([]int) error { return nil }); !errors.Is(err, ErrClosed) {
				t.Errorf("lent by a closed Guest: %v", err)
			}
		})
	}
}

// sealed makes a memfd with some seals.
func sealed(t *testing.T, sizeBytes int64, flags, seals int) int {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|flags)
	if err == nil {
		err = unix.Ftruncate(fd, sizeBytes)
	}
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// open opens a file for the case that gets it.
func open(t *testing.T, path string, flags int) int {
	t.Helper()
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// TestHostileFiles: whatever a peer passes is refused or mapped, never a danger, and always closed.
func TestHostileFiles(t *testing.T) {
	const allSeals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	sizes := [2]int64{8 * PageSize, 4 * PageSize}
	regions := []Region{{Base: 0, SizeBytes: uint64(sizes[0])}, {Base: 1 << 32, SizeBytes: uint64(sizes[1])}}
	good := func(i int) int { return sealed(t, sizes[i], 0, allSeals) }
	second := func(fd int) []int { return []int{good(0), fd} }
	onDisk := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(onDisk, make([]byte, sizes[1]), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name  string
		files func() []int
		want  string
	}{
		{"none", func() []int { return nil }, "0 files for 2 regions"},
		{"too few", func() []int { return []int{good(0)} }, "1 files for 2 regions"},
		{"too many", func() []int { return []int{good(0), good(1), good(1)} }, "3 files for 2 regions"},
		{"in another order", func() []int { return []int{good(1), good(0)} }, "file 0"},
		{"smaller", func() []int { return second(sealed(t, sizes[1]-1, 0, allSeals)) }, "it has 16383 bytes"},
		{"larger", func() []int { return second(sealed(t, sizes[1]+1, 0, allSeals)) }, "it has 16385 bytes"},
		{"empty", func() []int { return second(sealed(t, 0, 0, allSeals)) }, "it has 0 bytes"},
		{"may shrink", func() []int { return second(sealed(t, sizes[1], 0, unix.F_SEAL_GROW|unix.F_SEAL_SEAL)) }, "its seals are"},
		{"may be sealed", func() []int { return second(sealed(t, sizes[1], 0, unix.F_SEAL_GROW|unix.F_SEAL_SHRINK)) }, "its seals are"},
		{"no seals", func() []int { return second(sealed(t, sizes[1], 0, 0)) }, "its seals are"},
		{"sealed against writing", func() []int { return second(sealed(t, sizes[1], 0, allSeals|unix.F_SEAL_WRITE)) }, "its seals are"},
		{"sealed against mapping", func() []int { return second(sealed(t, sizes[1], 0, allSeals|unix.F_SEAL_FUTURE_WRITE)) }, "its seals are"},
		{"read only", func() []int {
			fd := good(1)
			defer unix.Close(fd)
			return second(open(t, fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY))
		}, "not open for reading and writing"},
		{"write only", func() []int {
			fd := good(1)
			defer unix.Close(fd)
			return second(open(t, fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_WRONLY))
		}, "not open for reading and writing"},
		{"a path", func() []int {
			fd := good(1)
			defer unix.Close(fd)
			return second(open(t, fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_PATH))
		}, "not a memfd"},
		{"one twice", func() []int {
			fd := sealed(t, sizes[1], 0, allSeals)
			return []int{fd, dup(t, fd)}
		}, "file"},
		{"a pipe", func() []int {
			var p [2]int
			if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
			unix.Close(p[1])
			return second(p[0])
		}, "not a memfd"},
		{"a socket", func() []int {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			return second(fd)
		}, "not a memfd"},
		{"a file on a disk", func() []int { return second(open(t, onDisk, unix.O_RDWR)) }, "file 1"},
		{"a device", func() []int { return second(open(t, "/dev/zero", unix.O_RDWR)) }, "not a memfd"},
		{"a folder", func() []int { return second(open(t, "/", unix.O_RDONLY|unix.O_DIRECTORY)) }, "not a memfd"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := openFiles(t)
			g, err := NewFromFiles(regions, tc.files(), Options{})
			if err == nil {
				_ = g.Close()
			}
			if !errors.Is(err, ErrBadFiles) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want ErrBadFiles with %q", err, tc.want)
			}
			if after := openFiles(t); after != before {
				t.Errorf("%d descriptors are open, %d were before", after, before)
			}
		})
	}
	t.Run("one for two regions of one size", func(t *testing.T) {
		alike := []Region{regions[1], {Base: 2 << 32, SizeBytes: regions[1].SizeBytes}}
		fd := good(1)
		if _, err := NewFromFiles(alike, []int{fd, dup(t, fd)}, Options{}); err == nil || !strings.Contains(err.Error(), "the same file") {
			t.Error(err)
		}
	})
	t.Run("closed with bad regions", func(t *testing.T) {
		before := openFiles(t)
		if _, err := NewFromFiles(nil, []int{good(0)}, Options{}); !errors.Is(err, ErrBadLayout) {
			t.Error(err)
		}
		if after := openFiles(t); after != before {
			t.Errorf("%d descriptors are open, %d were before", after, before)
		}
	})
	t.Run("good", func(t *testing.T) {
		before := openFiles(t)
		g, err := NewFromFiles(regions, []int{good(0), good(1)}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(g.StoreUint64(1<<32, 1), g.Close()); err != nil {
			t.Error(err)
		}
		if after := openFiles(t); after != before {
			t.Errorf("%d descriptors are open, %d were before", after, before)
		}
	})
}
