package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestDemo runs the README's first command on a terminal that does not know its size, as those of
// containers and of script(1) are.
func TestDemo(t *testing.T) {
	if slow() {
		t.Skip("the demo's load is made for a real machine")
	}
	h := newHouse(t)
	here, there := openTerminal(t)
	cmd := exec.CommandContext(h.ctx, program(t), "demo")
	cmd.Env = append(os.Environ(), "TMPDIR="+h.dir)
	var stdout bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, there
	drawn := make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(here) // a terminal ends with EIO
		drawn <- string(text)
	}()
	err := cmd.Run()
	there.Close()
	bars := <-drawn
	if err != nil {
		t.Fatalf("%v:\n%s%s", err, &stdout, bars)
	}
	for _, want := range []string{"status            completed", "mismatches        0", "guest paused"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("no %q in:\n%s", want, &stdout)
		}
	}
	if !strings.Contains(bars, "round 1") || !strings.Contains(bars, "|=") {
		t.Errorf("no bar in %q", bars)
	}
	if left, err := filepath.Glob(h.path("*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
