package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fineline-vmm/fineline/migration"
	"github.com/fineline-vmm/fineline/vmm/api"
	"github.com/fineline-vmm/fineline/vmm/vmmtest"
)

// soak reports whether tests run as often as acceptance wants (docs/testing.md).
func soak() bool { return os.Getenv("FINELINE_SOAK") != "" }

// span holds a value that is known to lie in it.
type span struct{ from, to float64 }

// clockAhead is how far the guest's wall clock is ahead of this host's, in seconds: the guest read it between
// the question and the answer. A slow host makes the span longer and not wrong.
func (m *memcheck) clockAhead() span {
	m.t.Helper()
	m.say("every 0s")
	m.say("are you quiet")
	for m.next() != fmt.Sprintf("seq=%d unknown command are you quiet", m.last.seq) {
	}
	now := func() float64 { return float64(time.Now().UnixNano()) / 1e9 }
	asked := now()
	m.say("status")
	s := m.status()
	answered := now()
	m.say("every 1s")
	return span{s.realtime - answered, s.realtime - asked}
}

// clockAllowance is how far a guest's wall clock may come from the host's in a test, in seconds, beside all
// downtimes: clocks are printed in milliseconds, and for the frequencies of two clocks 500 parts in a million for
// each of 100 s, as NTP allows.
const clockAllowance = 0.05

// checkClock fails if the guest's clock has left the host's by more than so many seconds.
func (m *memcheck) checkClock(begin span, downtime float64) {
	m.t.Helper()
	now := m.clockAhead()
	if now.from > begin.to+clockAllowance || now.to < begin.from-clockAllowance-downtime {
		m.t.Errorf("the guest's clock was %+v s ahead and is %+v s ahead after %v s of downtime", begin, now, downtime)
	}
	m.t.Logf("the guest's clock was %+v s ahead of the host's and is %+v", begin, now)
}

// TestLinuxMigratesInEveryMode moves stock Linux that checks its memory and its clocks and compresses data.
func TestLinuxMigratesInEveryMode(t *testing.T) {
	image := vmmtest.NeedLinux(t)
	each, guard := 2, linuxHangGuard
	if soak() {
		each, guard = 10, 4*linuxHangGuard
	}
	dir, err := os.MkdirTemp("", "fl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ctx, cancel := context.WithTimeout(t.Context(), guard)
	defer cancel()

	guest := newMemcheck(ctx, t)
	vmm := startLinux(ctx, t, dir, "p0", "--cpus", "2", "--memory", "192M",
		"--kernel", filepath.Join(image, "vmlinux"), "--initrd", filepath.Join(image, "initramfs.cpio"),
		"--cmdline", "console=ttyS0 fineline.test=memcheck fineline.job=compress fineline.mib=4 fineline.rest=100ms "+os.Getenv("FINELINE_LINUX_CMDLINE"))
	guest.arriveAt(filepath.Join(dir, "p0.tty"))
	guest.progress()
	guest.jobDone()
	clock, downtime := guest.clockAhead(), 0.0
	requests := []api.MigrationRequest{
		{MemoryMode: "Precopy", Granularity: "line", DowntimeMS: 1000},
		{MemoryMode: "Postcopy"},
		{MemoryMode: "Hybrid", DowntimeMS: 1},
	}
	for hop := range each * len(requests) {
		r := requests[hop%len(requests)]
		name := fmt.Sprintf("p%d", hop+1)
		r.DestinationURL = "unix:" + filepath.Join(dir, name+".mig")
		next := startLinux(ctx, t, dir, name, "--incoming", r.DestinationURL)
		result, err := vmm.Migrate(ctx, r, ignoreProgress)
		if err != nil || result.Status != migration.StatusCompleted {
			t.Fatalf("hop %d, %s: %v, %+v", hop, r.MemoryMode, err, result)
		}
		guest.arriveAt(filepath.Join(dir, name+".tty"))
		if err := ended(ctx, vmm); err != nil {
			t.Fatalf("hop %d, %s: the source: %v", hop, r.MemoryMode, err)
		}
		vmm = next
		guest.progress()
		guest.jobDone()
		downtime += result.DowntimeMS / 1e3
		t.Logf("hop %d, %s: %.0f ms, %.0f ms of downtime, %d rounds, post-copy %t, %+v", hop, r.MemoryMode, result.TotalMS,
			result.DowntimeMS, len(result.Rounds), result.SwitchedToPostcopy, result.Faults)
	}
	guest.checkClock(clock, downtime)
	guest.wantQuiet()
	guest.say("poweroff")
	if err := ended(ctx, vmm); err != nil {
		t.Errorf("the last process: %v", err)
	}
}
