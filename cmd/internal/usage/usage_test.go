package usage

import (
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestOwnTimes: this process is one, and has no vCPU.
func TestOwnTimes(t *testing.T) {
	from, err := ReadTimes(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	const least = 5 * time.Millisecond
	to := from
	for to.process-from.process < least { // ends: this loop takes processor time
		if to, err = ReadTimes(os.Getpid()); err != nil {
			t.Fatal(err)
		}
	}
	vcpus, err := VCPUs(os.Getpid())
	if err != nil || len(vcpus) != 0 {
		t.Errorf("VCPUs() = %v, %v", vcpus, err)
	}
	if took := Beside(vcpus, from, to); took < least {
		t.Errorf("took %v, want at least %v", took, least)
	}
	if n, err := GuestBytes(os.Getpid(), 1<<50); err != nil || n != 0 {
		t.Errorf("GuestBytes() = %d, %v", n, err)
	}
}

// TestMemfd: a page that is mapped twice is one page.
func TestMemfd(t *testing.T) {
	const size = 1 << 20
	fd, err := unix.MemfdCreate("guest", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	before, err := ReadMemory(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Ftruncate(fd, size); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		m, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Munmap(m)
		for i := range m {
			m[i] = 1
		}
	}
	after, err := ReadMemory(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if after.MemfdBytes-before.MemfdBytes != size || after.SharedBytes-before.SharedBytes != 2*size || after.PeakBytes < before.PeakBytes {
		t.Errorf("before %+v, after %+v", before, after)
	}
}

func TestBesideLeavesVCPUsOut(t *testing.T) {
	from := Times{process: 10 * time.Second, threads: map[string]time.Duration{"7": 3 * time.Second, "8": time.Second}}
	to := Times{process: 16 * time.Second, threads: map[string]time.Duration{"7": 7 * time.Second, "8": 2 * time.Second, "9": time.Second}}
	if got := Beside([]string{"7"}, from, to); got != 2*time.Second {
		t.Errorf("Beside() = %v", got)
	}
	if got := Beside([]string{"7", "9"}, from, to); got != time.Second { // 9 began in between
		t.Errorf("Beside() = %v", got)
	}
}

func TestInGuest(t *testing.T) {
	// Field 43 is guest_time; the name has what a name may have.
	stat := func(guest string) string {
		return "7 (a) b) S" + strings.Repeat(" 1", 39) + " " + guest + " 0 1 2\n"
	}
	for guest, want := range map[string]bool{"0": false, "295": true} {
		if got, err := inGuest(stat(guest)); err != nil || got != want {
			t.Errorf("inGuest(%s) = %v, %v", guest, got, err)
		}
	}
	if _, err := inGuest("7 (short) S 1\n"); err == nil {
		t.Error("a cut line passes")
	}
}

func TestGuestResident(t *testing.T) {
	const smaps = `7f0000000000-7f0040000000 rw-p 00000000 00:00 0
Size:            1048576 kB
Rss:                2000 kB
7f0050000000-7f0050001000 rw-p 00000000 00:00 0
Rss:                   4 kB
7f0060000000-7f0061000000 rw-s 00000000 00:01 1 /memfd:guest (deleted)
Rss:                 100 kB
VmFlags: rd wr
`
	if got, err := guestResident(strings.NewReader(smaps), 1<<30); err != nil || got != 2000<<10 {
		t.Errorf("guestResident() = %d, %v", got, err)
	}
	if got, err := guestResident(strings.NewReader(smaps), 1<<31); err != nil || got != 0 {
		t.Errorf("guestResident() = %d, %v", got, err)
	}
	if _, err := kib("VmRSS: 1 kB", "VmHWM"); err == nil {
		t.Error("a missing key passes")
	}
}
