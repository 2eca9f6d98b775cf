package linux

import (
	"bytes"
	"compress/gzip"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pierrec/lz4/v4"
	"github.com/u-root/u-root/pkg/cpio"
)

// testELF is the smallest ELF64 with one note segment.
func testELF(note []byte) []byte {
	var b bytes.Buffer
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1,
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	p := elf.Prog64{Type: uint32(elf.PT_NOTE), Off: 120, Filesz: uint64(len(note))}
	for _, v := range []any{h, p, note} {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

func xenNote(kind uint32) []byte {
	note := binary.LittleEndian.AppendUint32(nil, 4)
	note = binary.LittleEndian.AppendUint32(note, 4)
	note = binary.LittleEndian.AppendUint32(note, kind)
	return append(note, "Xen\x00\x00\x00\x00\x01"...)
}

// testBzImage is a setup header with that compressed payload.
func testBzImage(payload []byte) []byte {
	const setupSects = 1
	image := make([]byte, (setupSects+1)*sectorBytes)
	image[offSetupSects] = setupSects
	copy(image[offHeaderMagic:], "HdrS")
	binary.LittleEndian.PutUint16(image[offVersion:], 0x020f)
	binary.LittleEndian.PutUint32(image[offPayloadLength:], uint32(len(payload)))
	return append(image, payload...)
}

func gzipped(data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func lz4ed(data []byte) []byte {
	var b bytes.Buffer
	w := lz4.NewWriter(&b)
	if err := w.Apply(lz4.LegacyOption(true)); err != nil {
		panic(err)
	}
	if _, err := w.Write(data); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return binary.LittleEndian.AppendUint32(b.Bytes(), uint32(len(data)))
}

func TestExtractVmlinux(t *testing.T) {
	good := testELF(append(xenNote(6), xenNote(xenNotePhys32Entry)...))
	for _, tt := range []struct {
		name  string
		image []byte
		want  error
	}{
		{"gzip", testBzImage(gzipped(good)), nil},
		{"lz4", testBzImage(lz4ed(good)), nil},
		{"no PVH note", testBzImage(gzipped(testELF(xenNote(6)))), ErrNoPVHNote},
		{"empty", nil, ErrNotBzImage},
		{"text", bytes.Repeat([]byte("hello\n"), 1000), ErrNotBzImage},
		{"payload outside", testBzImage(gzipped(good))[:1030], ErrNotBzImage},
		{"absurd size", testBzImage([]byte("payload\xff\xff\xff\xff")), ErrNotBzImage},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ExtractVmlinux(t.Context(), tt.image)
			if !errors.Is(err, tt.want) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
			if tt.want == nil && !bytes.Equal(got, good) {
				t.Errorf("got %d bytes, want %d", len(got), len(good))
			}
		})
	}
}

func TestDecompressBombIsCapped(t *testing.T) {
	bomb := gzipped(make([]byte, 1<<20))
	if _, err := decompress(t.Context(), bomb, 1<<10); !errors.Is(err, errTooLarge) {
		t.Errorf("got %v, want %v", err, errTooLarge)
	}
}

func FuzzExtractVmlinux(f *testing.F) {
	good := testELF(xenNote(xenNotePhys32Entry))
	f.Add(testBzImage(gzipped(good)))
	f.Add(testBzImage(lz4ed(good)))
	f.Add([]byte("HdrS"))
	f.Fuzz(func(t *testing.T, image []byte) {
		if bytes.Contains(image, xzMagic) || bytes.Contains(image, zstdMagic) {
			t.Skip("would run a program of the host for each input")
		}
		vmlinux, err := ExtractVmlinux(context.Background(), image)
		if err == nil && CheckPVH(bytes.NewReader(vmlinux)) != nil {
			t.Error("accepted a kernel that cannot be entered")
		}
	})
}

func TestAptAnswers(t *testing.T) {
	const depends = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-1-cloud-amd64\n"
	if got, ok := parseDepends(depends); !ok || got != "linux-image-6.1.0-1-cloud-amd64" {
		t.Errorf("depends: %q, %v", got, ok)
	}
	for _, bad := range []string{"", "linux-image-cloud-amd64\n", "  Depends: linux-image-x;rm\n", "  Depends: linux-image-../../x\n"} {
		if got, ok := parseDepends(bad); ok {
			t.Errorf("%q gave %q", bad, got)
		}
	}
	if got, ok := parseVersion("Package: x\nVersion: 1:6.1.4-1~bpo+1\n"); !ok || got != "1:6.1.4-1~bpo+1" {
		t.Errorf("version: %q, %v", got, ok)
	}
	if got := (debPackage{"linux-image-6.1.0-1-cloud-amd64", "1:6.1"}); got.dirName() != "linux-image-6.1.0-1-cloud-amd64_1%3a6.1" || got.release() != "6.1.0-1-cloud-amd64" {
		t.Errorf("%q, %q", got.dirName(), got.release())
	}
}

func TestModinfoDepends(t *testing.T) {
	got := parseModinfoDepends("license=GPL\x00depends=kvm,irq-bypass\x00name=kvm_amd\x00")
	if diff := cmp.Diff([]string{"kvm", "irq_bypass"}, got); diff != "" {
		t.Error(diff)
	}
	if got := parseModinfoDepends("depends=\x00"); got != nil {
		t.Errorf("no dependencies: %q", got)
	}
}

func TestTreeIsReproducibleAndComplete(t *testing.T) {
	dir := t.TempDir()
	host := filepath.Join(dir, "host")
	if err := os.WriteFile(host, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	write := func(name string) []byte {
		tree := NewTree()
		tree.File("/a/b/file", host, 0o755)
		tree.Symlink("bin/sh", "replaced")
		tree.Symlink("bin/sh", "busybox")
		out := filepath.Join(dir, name)
		if err := tree.WriteFile(out); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	one, two := write("one"), write("two")
	if !bytes.Equal(one, two) {
		t.Error("equal trees gave different archives")
	}
	records, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(one)))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range records {
		names = append(names, r.Name)
	}
	for _, want := range []string{"a", "a/b", "a/b/file", "bin/sh", "dev/console"} {
		if !slices.Contains(names, want) {
			t.Errorf("no %s in %q", want, names)
		}
	}
	if !slices.IsSorted(names) {
		t.Errorf("not sorted: %q", names)
	}
}

func TestTreeRefuses(t *testing.T) {
	for name, add := range map[string]func(*Tree){
		"outside":   func(t *Tree) { t.Bytes("../x", nil, 0o644) },
		"root":      func(t *Tree) { t.Dir("/") },
		"missing":   func(t *Tree) { t.File("x", "/nonexistent/file", 0o644) },
		"directory": func(t *Tree) { t.File("x", "/", 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			tree := NewTree()
			add(tree)
			if err := tree.WriteFile(filepath.Join(t.TempDir(), "out")); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestPublishDirFillsOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sub", "final")
	var fills atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			err := publishDir(dir, func(tmp string) error {
				fills.Add(1)
				return os.WriteFile(filepath.Join(tmp, "file"), []byte("x"), 0o644)
			})
			if err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(filepath.Join(dir, "file")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := fills.Load(); n != 1 {
		t.Errorf("filled %d times", n)
	}
}

func TestPublishDirFailureLeavesNothing(t *testing.T) {
	parent := t.TempDir()
	boom := errors.New("boom")
	err := publishDir(filepath.Join(parent, "final"), func(string) error { return boom })
	if !errors.Is(err, boom) {
		t.Fatalf("got %v, want %v", err, boom)
	}
	left, err := os.ReadDir(parent)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		if !strings.HasPrefix(e.Name(), ".lock") {
			t.Errorf("left behind: %s", e.Name())
		}
	}
}

func TestStaticELF(t *testing.T) {
	name := filepath.Join(t.TempDir(), "static")
	if err := os.WriteFile(name, testELF(nil), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := staticELF(name); err != nil {
		t.Error(err)
	}
	if err := staticELF("/proc/self/cmdline"); err == nil {
		t.Error("text passed for a program")
	}
}
