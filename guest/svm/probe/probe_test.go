package probe

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/images/linux"
)

// kvmGetAPIVersion is KVM_GET_API_VERSION, _IO(0xAE, 0x00) of linux/kvm.h.
const kvmGetAPIVersion = 0xae00

func needMachine(t *testing.T) {
	t.Helper()
	if tier := os.Getenv("FINELINE_TIER"); tier != "svm" {
		t.Skipf("only in the emulated machine: FINELINE_TIER is %q, not svm", tier)
	}
}

func TestKVMAnswers(t *testing.T) {
	needMachine(t)
	fd, err := unix.Open("/dev/kvm", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	version, err := unix.IoctlRetInt(fd, kvmGetAPIVersion)
	if err != nil || version != 12 {
		t.Errorf("KVM_GET_API_VERSION: %d, %v; want 12", version, err)
	}
}

func TestCPUHasSVM(t *testing.T) {
	needMachine(t)
	info := read(t, "/proc/cpuinfo")
	if !regexp.MustCompile(`(?m)^flags\s*:.*\bsvm\b`).MatchString(info) {
		t.Error("no svm flag in /proc/cpuinfo")
	}
	if npt := strings.TrimSpace(read(t, "/sys/module/kvm_amd/parameters/npt")); npt != "Y" {
		t.Errorf("nested paging: %q, want Y", npt)
	}
}

// TestClockIsTSC guards what kvmclock in guests depends on.
func TestClockIsTSC(t *testing.T) {
	needMachine(t)
	const file = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
	if clock := strings.TrimSpace(read(t, file)); clock != "tsc" {
		t.Errorf("clock source %q, want tsc", clock)
	}
}

// TestNobodyOnFirstCPU guards against the race of QEMU 7.2 that package svm tells of.
func TestNobodyOnFirstCPU(t *testing.T) {
	needMachine(t)
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		t.Fatal(err)
	}
	if allowed.IsSet(0) || allowed.Count() == 0 {
		t.Errorf("this process may run on CPU 0: %t, on %d CPUs", allowed.IsSet(0), allowed.Count())
	}
}

func TestLinuxGuestIsThere(t *testing.T) {
	needMachine(t)
	dir := os.Getenv(linux.DirEnv)
	for _, name := range []string{linux.VmlinuzName, linux.VmlinuxName, linux.InitramfsName} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	f, err := os.Open(filepath.Join(dir, linux.VmlinuxName))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := linux.CheckPVH(f); err != nil {
		t.Error(err)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
