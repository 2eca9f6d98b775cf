package svm

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/guest/svm/channel"
)

// cmdline of the machine's own kernel. tsc=reliable: see the package comment.
// panic=-1 with -no-reboot ends QEMU at once when the kernel panics. isolcpus=0 keeps
// every process off CPU 0, which must not run guests: see the package comment.
const cmdline = "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable nokaslr isolcpus=0 rdinit=/init"

// Modules are what the machine's initramfs must load, beside what they need.
var Modules = []string{"virtio_pci", "virtio_console", "kvm_amd"}

// qemuArgs is the machine. The agent's port is descriptor 3.
func qemuArgs(o MachineOptions) []string {
	return []string{
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-machine", "q35,hpet=off,vmport=off",
		"-accel", "tcg,thread=multi",
		"-cpu", "max,+svm,-erms,-fsrm",
		"-smp", strconv.Itoa(o.CPUs + 1), // and CPU 0
		"-m", fmt.Sprintf("%dM", o.MemoryBytes>>20),
		"-kernel", o.Kernel,
		"-initrd", o.Initramfs,
		"-append", cmdline,
		"-chardev", "file,id=console,path=" + escapeComma(o.ConsoleLog),
		"-serial", "chardev:console",
		"-device", "virtio-serial-pci",
		"-chardev", "socket,id=agent,fd=3",
		"-device", "virtserialport,chardev=agent,name=" + channel.PortName,
	}
}

// escapeComma keeps a path one value of QEMU's comma-separated options.
func escapeComma(path string) string { return strings.ReplaceAll(path, ",", ",,") }

// socketPair makes the two ends of the channel without a name in the file
// system: nothing to clean up, nobody else can connect.
func socketPair() (host net.Conn, guest *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	guest = os.NewFile(uintptr(fds[1]), "guest end")
	ours := os.NewFile(uintptr(fds[0]), "host end")
	defer ours.Close()
	host, err = net.FileConn(ours)
	if err != nil {
		_ = guest.Close()
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	return host, guest, nil
}

func decodeExit(payload []byte) (channel.Exit, error) {
	var e channel.Exit
	if err := json.Unmarshal(payload, &e); err != nil {
		return e, fmt.Errorf("%w: exit frame: %w", ErrMachine, err)
	}
	return e, nil
}

// tailBytes is how much of a program's last output tail keeps.
const tailBytes = 4096

// tail is a writer that keeps the end of what is written.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-tailBytes):]
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.text))
}
