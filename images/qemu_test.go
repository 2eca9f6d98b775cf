package images_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/images"
	"github.com/fineline-vmm/fineline/memory"
)

// Firmware in real mode takes seconds on software KVM, and the machine may be busy.
const qemuTimeout = 3 * time.Minute

const gib = uint64(1) << 30

// accelerators runs fn under each that this host has.
func accelerators(t *testing.T, fn func(t *testing.T, accel string)) {
	t.Helper()
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skipf("no QEMU: install qemu-system-x86 (%v)", err)
	}
	t.Run("tcg", func(t *testing.T) { fn(t, "tcg") })
	t.Run("kvm", func(t *testing.T) {
		f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
		if err != nil {
			t.Skipf("no usable KVM: %v", err)
		}
		_ = f.Close()
		if testing.Short() {
			t.Skip("short: firmware takes seconds on software KVM")
		}
		fn(t, "kvm")
	})
}

type qemuOptions struct {
	accel, guest, cmdline, machine string
	vcpus                          int
	memory                         uint64 // bytes
}

// qemu is a running QEMU with the guest's serial line, its control channel and its memory.
type qemu struct {
	t      *testing.T
	cmd    *exec.Cmd
	lines  chan string // serial output; closed when it ends
	serial net.Conn
	qmp    net.Conn
	qmpIn  *bufio.Reader
	mem    *os.File
	size   uint64
}

func startQEMU(t *testing.T, o qemuOptions) *qemu {
	t.Helper()
	dir, err := os.MkdirTemp("", "images") // t.TempDir has the test's name in it, and QEMU splits at commas
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	data, ok := images.Builtin(o.guest)
	if !ok {
		t.Fatalf("no guest %s", o.guest)
	}
	kernel := filepath.Join(dir, o.guest)
	if err := os.WriteFile(kernel, data, 0o600); err != nil {
		t.Fatal(err)
	}
	q := &qemu{t: t, lines: make(chan string, 1000), size: o.memory}
	q.mem = q.memfd()
	ctx, cancel := context.WithTimeout(context.Background(), qemuTimeout)
	q.cmd = exec.CommandContext(ctx, "qemu-system-x86_64",
		"-machine", o.machine+",memory-backend=ram", "-accel", o.accel, "-smp", strconv.Itoa(o.vcpus),
		"-m", fmt.Sprintf("%dM", o.memory>>20), "-object",
		fmt.Sprintf("memory-backend-file,id=ram,size=%d,mem-path=/proc/self/fd/3,share=on", o.memory),
		"-kernel", kernel, "-append", o.cmdline, "-display", "none", "-nodefaults", "-no-reboot",
		"-device", "isa-debug-exit,iobase=0xf4,iosize=0x4",
		"-chardev", "socket,id=serial,path="+filepath.Join(dir, "serial")+",server=on,wait=on",
		"-serial", "chardev:serial", "-qmp", "unix:"+filepath.Join(dir, "qmp")+",server=on,wait=on")
	q.cmd.ExtraFiles = []*os.File{q.mem}
	errs, err := q.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := q.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = q.cmd.Wait()
	})
	// QEMU says on its standard error when each socket waits for its client.
	said := bufio.NewScanner(errs)
	q.serial = q.connect(said, filepath.Join(dir, "serial"))
	q.qmp = q.connect(said, filepath.Join(dir, "qmp"))
	go func() { _, _ = io.Copy(io.Discard, errs) }()
	q.qmpIn = bufio.NewReader(q.qmp)
	q.command("qmp_capabilities")
	go q.readSerial()
	return q
}

func (q *qemu) memfd() *os.File {
	q.t.Helper()
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	if err != nil {
		q.t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "guest")
	q.t.Cleanup(func() { _ = f.Close() })
	if err := f.Truncate(int64(q.size)); err != nil {
		q.t.Fatal(err)
	}
	return f
}

func (q *qemu) connect(said *bufio.Scanner, path string) net.Conn {
	q.t.Helper()
	for said.Scan() {
		if !strings.Contains(said.Text(), path) {
			continue
		}
		conn, err := net.Dial("unix", path)
		if err != nil {
			q.t.Fatal(err)
		}
		q.t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	q.t.Fatal("QEMU ended before it opened its sockets")
	return nil
}

func (q *qemu) readSerial() {
	defer close(q.lines)
	for s := bufio.NewScanner(q.serial); s.Scan(); {
		q.lines <- s.Text()
	}
}

// line returns the next line that contains text. SeaBIOS may have written before it in the same line.
func (q *qemu) line(text string) string {
	q.t.Helper()
	var all []string
	for line := range q.lines {
		if at := strings.Index(line, text); at >= 0 {
			return line[at:]
		}
		all = append(all, line)
	}
	q.t.Fatalf("QEMU ended without %q; its serial output: %q", text, all)
	return ""
}

func (q *qemu) send(command string) {
	q.t.Helper()
	if _, err := q.serial.Write([]byte(command)); err != nil {
		q.t.Fatal(err)
	}
}

func (q *qemu) command(name string) {
	q.t.Helper()
	if _, err := fmt.Fprintf(q.qmp, "{\"execute\":%q}\n", name); err != nil {
		q.t.Fatal(err)
	}
	for {
		line, err := q.qmpIn.ReadBytes('\n')
		if err != nil {
			q.t.Fatal(err)
		}
		var answer struct {
			Return *json.RawMessage
			Error  *json.RawMessage
		}
		if err := json.Unmarshal(line, &answer); err != nil {
			q.t.Fatal(err)
		}
		if answer.Error != nil {
			q.t.Fatalf("QMP %s: %s", name, *answer.Error)
		}
		if answer.Return != nil {
			return
		}
	}
}

// exit waits for the end and returns QEMU's exit status.
func (q *qemu) exit() int {
	q.t.Helper()
	for range q.lines { // Wait may only be called once nobody reads
		continue
	}
	err := q.cmd.Wait()
	var status *exec.ExitError
	if err != nil && !errors.As(err, &status) {
		q.t.Fatal(err)
	}
	return q.cmd.ProcessState.ExitCode()
}

// ReadAt reads guest memory from the file behind it: machine pc puts what is above 3 GiB at 4 GiB, if it has
// 3.5 GiB or more.
func (q *qemu) ReadAt(gpa memory.GPA, p []byte) error {
	at := uint64(gpa)
	if q.size >= 7*gib/2 && at >= 4*gib {
		at -= gib
	}
	if at > q.size || uint64(len(p)) > q.size-at {
		return fmt.Errorf("%w: %#x", memory.ErrOutOfRange, uint64(gpa))
	}
	_, err := q.mem.ReadAt(p, int64(at))
	return err
}
