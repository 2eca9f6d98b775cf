package procmem

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestParseMaps(t *testing.T) {
	const text = `55d0c000-55d0d000 r--p 00000000 08:01 1234                       /usr/bin/cat
55d0d000-55d0f000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0000200000 rw-s 00000000 00:01 99                 /memfd:a name with spaces (deleted)
7f0000200000-7f0000201000 rw-s f0000000 00:15 7                  /sys/devices/pci0000:00/resource0
7f0000201000-7f0000202000 rw-p 00000000 00:00 0 
7f0000202000-7f0000203000 rw-s 00000000 00:06 4                  /dev/dri/card0
7f0000203000-7f0000204000 rw-s 00000000 00:18 4                  /dev/shm/x
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0          [vsyscall]
`
	got, err := parseMaps(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	want := []Mapping{
		{0x55d0c000, 0x55d0d000, false, false, "/usr/bin/cat"},
		{0x55d0d000, 0x55d0f000, true, false, "[heap]"},
		{0x7f0000000000, 0x7f0000200000, true, true, "/memfd:a name with spaces (deleted)"},
		{0x7f0000200000, 0x7f0000201000, true, true, "/sys/devices/pci0000:00/resource0"},
		{0x7f0000201000, 0x7f0000202000, true, false, ""},
		{0x7f0000202000, 0x7f0000203000, true, true, "/dev/dri/card0"},
		{0x7f0000203000, 0x7f0000204000, true, true, "/dev/shm/x"},
		{0xffffffffff600000, 0xffffffffff601000, false, false, "[vsyscall]"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	var tracked, private []int
	for i, m := range got {
		if m.Tracked() {
			tracked = append(tracked, i)
			if m.Private() {
				private = append(private, i)
			}
		}
	}
	if fmt.Sprint(tracked, private) != "[1 2 4 6] [1 4]" {
		t.Errorf("tracked %v, of these private %v", tracked, private)
	}
	for _, bad := range []string{"x", "1000-2000", "2000-1000 rw-p", "1001-2000 rw-p 0 0 0", "-1000 rw-p 0 0 0"} {
		if _, err := parseMapping(bad); err == nil {
			t.Errorf("%q passed", bad)
		}
	}
}

func FuzzParseMaps(f *testing.F) {
	f.Add("1000-2000 rw-p 00000000 00:00 0   [heap]\n")
	f.Fuzz(func(t *testing.T, text string) {
		mappings, err := parseMaps(strings.NewReader(text))
		for _, m := range mappings {
			if err == nil && (m.Start >= m.End || m.Start%PageBytes != 0) {
				t.Errorf("%+v", m)
			}
		}
	})
}

func needFrames(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("the kernel shows physical addresses to root only")
	}
}

func TestOwnPages(t *testing.T) {
	needFrames(t)
	const n = 20000 // more than one read
	mem, err := unix.Mmap(-1, 0, n*PageBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	if err := unix.Madvise(mem, unix.MADV_NOHUGEPAGE); err != nil {
		t.Fatal(err)
	}
	touched := []int{0, 5, 8191, 8192, n - 1}
	for _, i := range touched {
		mem[i*PageBytes] = 1
	}
	table, err := OpenTable("self")
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	entries := make([]Entry, n)
	if err := table.Read(addressOf(mem), entries); err != nil {
		t.Fatal(err)
	}
	frames := map[uint64]bool{}
	var present []int
	for i, e := range entries {
		if frame, ok := e.Frame(); ok {
			present = append(present, i)
			frames[frame] = true
		}
	}
	if fmt.Sprint(present) != fmt.Sprint(touched) || len(frames) != len(touched) {
		t.Errorf("present %v in %d frames, want %v", present, len(frames), touched)
	}
	maps, err := OpenMaps("self")
	if err != nil {
		t.Fatal(err)
	}
	defer maps.Close()
	mappings, err := maps.Read()
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, m := range mappings {
		found = found || m.Start <= addressOf(mem) && addressOf(mem)+n*PageBytes <= m.End && m.Tracked() && m.Private()
	}
	if !found {
		t.Error("our mapping is not in the list")
	}
}

// TestOneAddressSpace: what was opened never shows another program, nor a process that has ended.
func TestOneAddressSpace(t *testing.T) {
	needFrames(t)
	cmd := exec.Command("sh", "-c", "echo started; read x; exec cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	await := func(want string) {
		t.Helper()
		if line, err := lines.ReadString('\n'); err != nil || line != want {
			t.Fatalf("%q, %v", line, err)
		}
	}
	await("started\n")
	shell := openBoth(t, cmd.Process.Pid)
	if err := shell.read(); err != nil {
		t.Fatalf("the shell: %v", err)
	}
	if _, err := io.WriteString(in, "x\ncat\n"); err != nil {
		t.Fatal(err)
	}
	await("cat\n") // it is another program now
	if err := shell.read(); !errors.Is(err, ErrGone) {
		t.Errorf("after exec: %v", err)
	}
	cat := openBoth(t, cmd.Process.Pid)
	if err := cat.read(); err != nil {
		t.Errorf("cat: %v", err)
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := cat.read(); !errors.Is(err, ErrGone) {
		t.Errorf("after the end: %v", err)
	}
	if _, err := OpenTable(strconv.Itoa(cmd.Process.Pid)); !errors.Is(err, ErrGone) {
		t.Errorf("open after the end: %v", err)
	}
}

type both struct {
	table   *Table
	maps    *Maps
	address uint64
}

func openBoth(t *testing.T, pid int) *both {
	t.Helper()
	table, err := OpenTable(strconv.Itoa(pid))
	if err != nil {
		t.Fatal(err)
	}
	maps, err := OpenMaps(strconv.Itoa(pid))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = table.Close(), maps.Close() })
	mappings, err := maps.Read()
	if err != nil {
		t.Fatal(err)
	}
	return &both{table, maps, mappings[0].Start}
}

// read returns the error that both files give.
func (b *both) read() error {
	_, err1 := b.maps.Read()
	err2 := b.table.Read(b.address, make([]Entry, 1))
	if (err1 == nil) != (err2 == nil) {
		return fmt.Errorf("maps: %w, pagemap: %w", err1, err2)
	}
	return err1
}
