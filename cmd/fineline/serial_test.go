package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/fineline-vmm/fineline/cmd/internal/workload"
	"github.com/fineline-vmm/fineline/vmm/vmmtest"
)

const helloOutput = "Hello from Fineline: 63 MiB of memory, cmdline \"a  b\"\n"

// run runs fineline to its end, with nothing on its standard input.
func run(t *testing.T, args ...string) (stdout, stderr []byte, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), program(t), args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	code = exitCode(cmd.Run())
	return out.Bytes(), errs.Bytes(), code
}

// TestSerialExact: what the guest sends is what arrives, byte for byte, and nothing else.
func TestSerialExact(t *testing.T) {
	h := newHouse(t)
	args := []string{"run", "--kernel", "builtin:hello", "--cmdline", "a  b", "--memory", "64M"}
	for _, c := range []struct {
		serial, stdout string
	}{
		{"stdio", helloOutput}, {"file:" + h.path("out"), ""}, {"none", ""},
	} {
		out, errs, code := run(t, append(args, "--serial", c.serial)...)
		if code != 0 || string(out) != c.stdout || len(errs) != 0 {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q", c.serial, code, out, errs)
		}
	}
	if text, err := os.ReadFile(h.path("out")); err != nil || string(text) != helloOutput {
		t.Errorf("the file holds %q, %v", text, err)
	}
}

// TestDebugExitStatus: a guest's own status is the process's.
func TestDebugExitStatus(t *testing.T) {
	vmmtest.NeedKVM(t)
	if _, errs, code := run(t, "run", "--kernel", "builtin:hello", "--cmdline", "exit=21", "--serial", "none"); code != 21<<1|1 {
		t.Errorf("exit code %d, stderr %q", code, errs)
	}
}

// TestSerialStdin: input on a pipe reaches the guest, and its end does not end the guest.
func TestSerialStdin(t *testing.T) {
	vmmtest.NeedKVM(t)
	cmd := exec.CommandContext(t.Context(), program(t), "run", "--kernel", "builtin:dirty", "--memory", "32M",
		"--cmdline", "pages=64 rate=1000 progress=0")
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
	lines := bufio.NewScanner(out)
	for i, want := range []string{"dirty ready vcpus=1 ", "check steps=", "check steps="} {
		if !lines.Scan() || !strings.HasPrefix(lines.Text(), want) {
			t.Fatalf("line %d is %q, want %q (%v)", i, lines.Text(), want, lines.Err())
		}
		switch i {
		case 0:
			_, err = io.WriteString(in, "c")
		case 1:
			_, err = io.WriteString(in, "junk\r\nq") // which checks and powers off
			err = firstError(err, in.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if lines.Scan() {
		t.Errorf("after the last check: %q", lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// TestSerialReconnect: clients may come, go with an answer on its way to them, and come back; the
// guest goes on and answers whoever is there.
func TestSerialReconnect(t *testing.T) {
	h := newHouse(t)
	m := h.startDirty("m", "", "pages=64 rate=1000 progress=0", "--memory", "32M")
	steps := m.check()
	for range 3 {
		conn, err := h.raw(m, "c")
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		if m.serial, err = workload.Dial(h.ctx, h.path("m.tty")); err != nil {
			t.Fatal(err)
		}
		now := m.check()
		if now < steps {
			t.Errorf("steps went from %d to %d", steps, now)
		}
		steps = now
	}
	m.stop()
}

// TestSerialAcrossMigration moves a guest while it speaks. What came out at the source and what came
// out at the destination are one text: nothing is lost, nothing comes twice.
func TestSerialAcrossMigration(t *testing.T) {
	h := newHouse(t)
	src := h.startDirty("src", "", "pages=64 rate=1000 progress=0", "--memory", "32M")
	dst, to := h.startIncoming("dst", "")
	there, err := h.raw(dst, "")
	if err != nil {
		t.Fatal(err)
	}
	// More than the 16 bytes that the port holds, so that it speaks all the time.
	here, err := h.raw(src, strings.Repeat("c", 1000))
	if err != nil {
		t.Fatal(err)
	}
	said := make(chan []byte, 1)
	go func() {
		text, _ := io.ReadAll(here) // until the source has ended
		said <- text
	}()
	src.move(to)
	src.awaitExit()
	text := <-said
	if _, err := io.WriteString(there, "q"); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(there)
	if err != nil {
		t.Fatal(err)
	}
	dst.awaitExit()
	t.Logf("%d bytes at the source, %d at the destination", len(text), len(rest))
	var last uint64
	for line := range strings.Lines(string(text) + string(rest)) {
		var steps uint64
		if _, err := fmt.Sscanf(line, "check steps=%d mismatches=0\n", &steps); err != nil || steps < last {
			t.Fatalf("after %d steps: %q, %v", last, line, err)
		}
		last = steps
	}
}

// raw takes the place of a serial port's client and writes text.
func (h *house) raw(m *machine, text string) (net.Conn, error) {
	if err := m.serial.Close(); err != nil {
		return nil, err
	}
	conn, err := net.Dial("unix", h.path(m.name+".tty"))
	if err != nil {
		return nil, err
	}
	h.t.Cleanup(func() { _ = conn.Close() })
	_, err = fmt.Fprint(conn, text)
	return conn, err
}
