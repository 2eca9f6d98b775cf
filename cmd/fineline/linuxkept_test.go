package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/cmd/internal/process"
	"github.com/fineline-vmm/fineline/migration"
	"github.com/fineline-vmm/fineline/vmm/api"
	"github.com/fineline-vmm/fineline/vmm/vmmtest"
)

// leave ends the conversation over the port of a process that lives on: what it has said there is still heard.
func (m *memcheck) leave() {
	m.t.Helper()
	if err := m.port.(*net.UnixConn).CloseWrite(); err != nil { // the process then closes its side
		m.t.Fatal(err)
	}
}

// comesBack begins anew with a guest that has gone back in time, to the process that serves its port at path. Of the line that it was
// printing in its checkpoint only the rest may come.
func (m *memcheck) comesBack(ctx context.Context, path string) *memcheck {
	m.t.Helper()
	again := newMemcheck(ctx, m.t)
	again.anew = true
	again.arriveAt(path)
	return again
}

// awaitCheckpoints waits until a process that is kept has a checkpoint of its guest that was begun after the call.
func awaitCheckpoints(ctx context.Context, t *testing.T, src *process.VMM) (last api.Standby) {
	t.Helper()
	const sure = 2 // one may be under way
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for from, known := uint64(0), false; ; {
		info, err := src.API.Info(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if s := info.Standby; s != nil {
			if !known {
				from, known = s.Checkpoint, true
			}
			if s.Checkpoint >= from+sure {
				return *s
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("no checkpoint comes: %+v", info.Standby)
		}
	}
}

// TestLinuxComesBack moves stock Linux in each mode with the source kept, and kills the destination. The guest goes on at the source
// from the last checkpoint: its memory, its clocks and its files are what they were then, and it works on.
func TestLinuxComesBack(t *testing.T) {
	image := vmmtest.NeedLinux(t)
	dir, err := os.MkdirTemp("", "fl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ctx, cancel := context.WithTimeout(t.Context(), linuxHangGuard/3)
	defer cancel()

	guest := newMemcheck(ctx, t)
	port := filepath.Join(dir, "src.tty")
	src := startLinux(ctx, t, dir, "src", "--cpus", "2", "--memory", "192M",
		"--kernel", filepath.Join(image, "vmlinux"), "--initrd", filepath.Join(image, "initramfs.cpio"),
		"--cmdline", "console=ttyS0 fineline.test=memcheck fineline.job=compress fineline.mib=4 fineline.rest=100ms "+os.Getenv("FINELINE_LINUX_CMDLINE"))
	guest.arriveAt(port)
	guest.progress()
	guest.jobDone()
	clock, lost := guest.clockAhead(), 0.0
	for _, r := range linuxModes {
		name := "dst" + r.MemoryMode
		r.DestinationURL, r.KeepSource = "unix:"+filepath.Join(dir, name+".mig"), true
		dst := startLinux(ctx, t, dir, name, "--incoming", r.DestinationURL)
		result, err := src.Migrate(ctx, r, ignoreProgress)
		if err != nil || result.Status != migration.StatusCompleted || !result.KeepSource {
			t.Fatalf("%s: %v, %+v", r.MemoryMode, err, result)
		}
		guest.leave()
		guest.arriveAt(filepath.Join(dir, name+".tty"))
		guest.progress()
		guest.jobDone()

		seen, began := guest.last, time.Now()
		checkpoint := awaitCheckpoints(ctx, t, src)
		if err := dst.Kill(); err != nil {
			t.Fatal(err)
		}
		guest = guest.comesBack(ctx, port)
		first := guest.status()
		undone := time.Since(began).Seconds()
		if first.seq <= seen.seq || first.rounds < seen.rounds || first.jobs < seen.jobs || first.uptime < seen.uptime {
			t.Errorf("%s: the guest went back from %+v to %+v, beyond its checkpoint", r.MemoryMode, seen, first)
		}
		guest.progress()
		guest.jobDone()
		lost += result.DowntimeMS/1e3 + undone
		t.Logf("%s: %.0f ms of downtime, at most %.1f s undone, %+v", r.MemoryMode, result.DowntimeMS, undone, checkpoint)
	}
	guest.checkClock(clock, lost)
	guest.wantQuiet()
	guest.say("poweroff")
	if err := ended(ctx, src); err != nil {
		t.Errorf("the source: %v", err)
	}
}
