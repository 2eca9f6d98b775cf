// Package guest_test runs the tests of the C library for guests' programs.
package guest_test

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// TestLibrary builds guest/c for this host, with the undefined-behaviour sanitizer, and runs it against a
// device in software. The device itself is met by the guest lines.
func TestLibrary(t *testing.T) {
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skipf("no C compiler: install gcc (%v)", err)
	}
	sources, err := filepath.Glob("c/*.c")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "test")
	args := append([]string{
		"-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-fsanitize=undefined", "-fno-sanitize-recover=all",
		"-Ic", "-Iinclude", "-o", program, "c/test/main.c", "c/test/device.c",
	}, sources...)
	if out, err := exec.CommandContext(t.Context(), "gcc", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := exec.CommandContext(t.Context(), program).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
