package main

import (
	"bytes"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSecondSignalEndsMigrate: the VMM hangs, so that nothing comes of a cancel.
func TestSecondSignalEndsMigrate(t *testing.T) {
	path := t.TempDir() + "/deaf.sock"
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.SetDeadline(time.Now().Add(hangGuard)); err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), program(t), "migrate", "--api", path, "--to", "unix:x")
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	const guardTime = hangGuard / 4 // less than a cancel is waited for, which would end it too
	guard := time.AfterFunc(guardTime, func() { _ = cmd.Process.Kill() })
	defer guard.Stop()
	for range 2 { // the request, and after the first signal that to cancel
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
			break
		}
		defer c.Close()
		if err := cmd.Process.Signal(unix.SIGINT); err != nil {
			t.Error(err)
		}
	}
	if code := exitCode(cmd.Wait()); code != 1 || !strings.Contains(stderr.String(), "`fineline status` tells") {
		t.Errorf("exit code %d: %s", code, &stderr)
	}
}
