package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"testing"

	"github.com/fineline-vmm/fineline/cmd/internal/qemu"
	"github.com/fineline-vmm/fineline/images"
)

// tool returns the path of a program that this test needs, or skips.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed: %v", name, err)
	}
	return path
}

// TestForeignKernel boots ELFs that were made elsewhere, by gcc and ld alone, linked as such kernels are.
func TestForeignKernel(t *testing.T) {
	for _, link := range []string{
		"-Ttext-segment=0x200000",
		"-Ttext=0x100000", // the ELF header comes to lie at 0xff000
		"-Ttext-segment=0x90000",
	} {
		t.Run(link, func(t *testing.T) { bootForeign(t, link) })
	}
}

func bootForeign(t *testing.T, link string) {
	h := newHouse(t)
	gcc, ld := tool(t, "gcc"), tool(t, "ld")
	object, elf := h.path("foreign.o"), h.path("foreign.elf")
	for _, args := range [][]string{
		{gcc, "-m32", "-c", "testdata/foreign.S", "-o", object},
		{ld, "-m", "elf_i386", link, "-e", "_start", "--build-id=none", object, "-o", elf},
	} {
		if out, err := exec.CommandContext(h.ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	want := make([]byte, 8192)
	for i := range want {
		want[i] = byte(i + 5*(i>>8))
	}
	out, errs, code := run(t, "run", "--kernel", elf, "--memory", "32M")
	if code != 3<<1|1 {
		t.Errorf("exit code %d, stderr %q", code, errs)
	}
	checkSame(t, out, want)
	t.Run("qemu", func(t *testing.T) {
		out, code := runQEMU(t, elf, "")
		if code != 3<<1|1 {
			t.Errorf("exit code %d of QEMU", code)
		}
		checkSame(t, out, want)
	})
}

// checkSame compares bytes and shows where they part.
func checkSame(t *testing.T, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	t.Errorf("%d bytes instead of %d; the first %d agree, then got %q, want %q",
		len(got), len(want), at, got[at:min(at+32, len(got))], want[at:min(at+32, len(want))])
}

// runQEMU runs a kernel in QEMU, emulated, since only what the guest says is of interest.
func runQEMU(t *testing.T, kernel, cmdline string) (out []byte, code int) {
	t.Helper()
	path := tool(t, qemu.Program)
	ctx, cancel := context.WithTimeout(t.Context(), hangGuard)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path, "-nodefaults", "-display", "none", "-accel", "tcg", "-m", "32",
		"-vga", "none", "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-serial", "stdio",
		"-kernel", kernel, "-append", cmdline)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	code = exitCode(cmd.Run())
	if stderr.Len() > 0 {
		t.Logf("QEMU: %s", stderr.String())
	}
	// The firmware speaks first where it has nothing but the serial port.
	if at := bytes.LastIndex(stdout.Bytes(), []byte("Booting from ROM..")); at >= 0 {
		return stdout.Bytes()[at+len("Booting from ROM.."):], code
	}
	return stdout.Bytes(), code
}

// differs are the numbers that belong to the host and not to the guest.
var differs = regexp.MustCompile(`(tsc_khz=|steps=)\d+|\d+ (MiB of memory)`)

// TestBuiltinsAsFiles: the builtin guests are ordinary kernels, here and in QEMU.
func TestBuiltinsAsFiles(t *testing.T) {
	h := newHouse(t)
	for name, c := range map[string]struct {
		cmdline string
		code    int
	}{
		"hello": {"exit=4 some  words", 4<<1 | 1},
		"dirty": {"pages=64 rate=0 steps=1000 progress=0", 0},
		"lines": {"rounds=2", 0},
	} {
		image, ok := images.Builtin(name)
		if !ok {
			t.Fatalf("no builtin %s", name)
		}
		file := h.path(name + ".elf")
		if err := os.WriteFile(file, image, 0o600); err != nil {
			t.Fatal(err)
		}
		var outputs [][]byte
		for _, kernel := range []string{"builtin:" + name, file} {
			out, errs, code := run(t, "run", "--kernel", kernel, "--cmdline", c.cmdline, "--memory", "32M")
			if code != c.code || len(out) == 0 {
				t.Errorf("%s: exit code %d, stdout %q, stderr %q", kernel, code, out, errs)
			}
			outputs = append(outputs, differs.ReplaceAll(out, []byte("$1$2")))
		}
		checkSame(t, outputs[1], outputs[0])
		t.Run(fmt.Sprintf("%s in qemu", name), func(t *testing.T) {
			out, code := runQEMU(t, file, c.cmdline)
			if code != c.code {
				t.Errorf("exit code %d of QEMU", code)
			}
			checkSame(t, outputs[1], differs.ReplaceAll(out, []byte("$1$2")))
		})
	}
}
