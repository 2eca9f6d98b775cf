package vmm

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fineline-vmm/fineline/vmm/vmmtest"
)

// linuxPrompt is printed by the test image's shell when it waits for a command.
const linuxPrompt = "fineline# "

// linuxMachine boots stock Linux from the image of package images/linux.
func linuxMachine(t *testing.T, kernel, mode string, cpus int) (*Machine, *vmmtest.SerialLog) {
	t.Helper()
	dir := vmmtest.NeedLinux(t)
	out := &vmmtest.SerialLog{}
	m := newMachine(t, Config{
		CPUs: cpus, MemoryBytes: 256 << 20, SerialOut: out,
		Boot: BootFiles{
			Kernel:  filepath.Join(dir, kernel),
			Initrd:  filepath.Join(dir, "initramfs.cpio"),
			Cmdline: fmt.Sprintf("console=ttyS0 fineline.test=%s %s", mode, os.Getenv("FINELINE_LINUX_CMDLINE")),
		},
	})
	if err := m.Resume(); err != nil {
		t.Fatal(err)
	}
	return m, out
}

// typeLine gives the guest's shell one command and returns what it printed.
func typeLine(t *testing.T, m *Machine, out *vmmtest.SerialLog, command string) string {
	t.Helper()
	before := len(out.String())
	if err := m.Feed(t.Context(), []byte(command+"\n")); err != nil {
		t.Fatal(err)
	}
	text := waitFor(t, out, before, linuxPrompt)[before:]
	return strings.TrimSpace(strings.TrimSuffix(text, linuxPrompt))
}

// wantQuietKernel fails if the guest's kernel has complained.
func wantQuietKernel(t *testing.T, m *Machine, out *vmmtest.SerialLog) {
	t.Helper()
	const complaints = `dmesg | grep -E 'WARNING|BUG|Oops|soft lockup|rcu.*stall|hung task' ; true`
	if text := typeLine(t, m, out, complaints); text != "" {
		t.Errorf("the guest's kernel complains:\n%s", text)
	}
}

func TestLinuxBoots(t *testing.T) {
	for _, kernel := range []string{"vmlinux", "vmlinuz"} {
		for _, cpus := range []int{1, 2, 4} {
			t.Run(fmt.Sprintf("%s/%d", kernel, cpus), func(t *testing.T) {
				m, out := linuxMachine(t, kernel, "shell", cpus)
				waitFor(t, out, 0, linuxPrompt)
				if got := typeLine(t, m, out, "nproc"); got != fmt.Sprint(cpus) {
					t.Errorf("nproc says %q", got)
				}
				wantQuietKernel(t, m, out)
				if err := m.Feed(t.Context(), []byte("poweroff -f\n")); err != nil {
					t.Fatal(err)
				}
				if o := awaitEnd(t, m); o.Kind != EndedByPowerOff {
					t.Errorf("outcome %+v", o)
				}
			})
		}
	}
}

// TestLinuxReboots starts the kernel over inside one machine.
func TestLinuxReboots(t *testing.T) {
	m, out := linuxMachine(t, "vmlinux", "shell", 2)
	waitFor(t, out, 0, linuxPrompt)
	before := len(out.String())
	if err := m.Feed(t.Context(), []byte("reboot -f\n")); err != nil {
		t.Fatal(err)
	}
	waitFor(t, out, before, "fineline-guest: ready")
	waitFor(t, out, before, linuxPrompt)
	wantQuietKernel(t, m, out)
}
