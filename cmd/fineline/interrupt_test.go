package main

import (
	"bytes"
	"encoding/json"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/migration"
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
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), program(t), "migrate", "--api", path, "--to", "unix:x", "--json")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
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
	if !strings.HasPrefix(stdout.String(), `{"status":"unknown","mode":"precopy","granularity":"line",`) {
		t.Errorf("stdout: %s", &stdout)
	}
}

// TestCancelInPreflight: the destination does not answer. Who cancels then reads that it was a cancel, as at any later time.
func TestCancelInPreflight(t *testing.T) {
	for name, cancel := range map[string]func(*machine) error{
		"fineline cancel": func(src *machine) error { return src.API.CancelMigration(src.h.ctx) },
		"SIGTERM":         func(src *machine) error { return unix.Kill(src.PID(), unix.SIGTERM) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			src := h.startDirty("src", "", ownershipLoad, "--memory", "64M")
			deaf, err := net.Listen("unix", h.path("deaf.mig"))
			if err != nil {
				t.Fatal(err)
			}
			defer deaf.Close()
			var stdout, stderr bytes.Buffer
			cmd := exec.CommandContext(h.ctx, program(t), "migrate", "--api", src.APIPath, "--to", "unix:"+h.path("deaf.mig"), "--json")
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			conn, err := deaf.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := cancel(src); err != nil {
				t.Error(err)
			}
			code := exitCode(cmd.Wait())
			var r migration.Result
			if err := json.Unmarshal(stdout.Bytes(), &r); err != nil || code != 1 ||
				r.Status != migration.StatusCancelled || r.Error != "cancelled on request" || r.Generation != 1 {
				t.Errorf("exit code %d, %v, %s%s", code, err, &stdout, &stderr)
			}
			if name == "SIGTERM" {
				src.awaitExit()
				return
			}
			src.checkRuns()
			src.stop()
		})
	}
}
