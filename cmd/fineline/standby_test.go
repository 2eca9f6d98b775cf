package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/migration"
	"github.com/fineline-vmm/fineline/migration/inject"
	"github.com/fineline-vmm/fineline/migration/journal"
	"github.com/fineline-vmm/fineline/vmm/api"
	"github.com/fineline-vmm/fineline/vmm/vmmtest"
)

// keptLoad checks each line before it is written again.
const keptLoad = "pages=2048 lines=2 rate=50000 pattern=random verify=1 progress=0"

func keptRequest(to, mode string) api.MigrationRequest {
	r := request(to)
	r.MemoryMode, r.KeepSource, r.CheckpointMS = mode, true, 10
	return r
}

// moveKept starts a guest and moves it away from a source that is kept.
func (h *house) moveKept(mode string) (src, dst *machine) {
	h.t.Helper()
	src = h.startDirty("src", "", keptLoad, "--memory", "64M")
	dst, to := h.startIncoming("dst", "")
	if r, err := src.Migrate(h.ctx, keptRequest(to, mode), ignoreProgress); err != nil || r.Status != migration.StatusCompleted {
		h.t.Fatalf("%v %+v", err, r)
	}
	return src, dst
}

// standby is what the source keeps; a zero one before the guest has moved.
func (m *machine) standby() api.Standby {
	info, err := m.API.Info(m.h.ctx)
	if err != nil || info.Standby == nil {
		return api.Standby{}
	}
	return *info.Standby
}

// TestKeepSource kills the destination after the migration. The guest goes on at the source without a wrong line,
// moves again, and so on.
func TestKeepSource(t *testing.T) {
	hostTierOnly(t)
	vmmtest.NeedKVM(t)
	for _, mode := range []string{"Precopy", "Postcopy", "Hybrid"} {
		for _, dirty := range []string{"log", "ring"} {
			t.Run(mode+" "+dirty, func(t *testing.T) {
				h := newHouse(t)
				src := h.startDirty("src", "", keptLoad, "--memory", "64M", "--cpus", "2", "--dirty", dirty)
				for n := range 4 {
					h.lose(src, fmt.Sprintf("dst%d", n), mode)
				}
				src.stop()
			})
		}
	}
}

// lose moves the guest to a new destination and kills that.
func (h *house) lose(src *machine, name, mode string) {
	h.t.Helper()
	dst, to := h.startIncoming(name, "")
	h.loseAt(src, dst, keptRequest(to, mode))
}

// loseAt moves the guest to dst and kills that.
func (h *house) loseAt(src, dst *machine, request api.MigrationRequest) {
	h.t.Helper()
	r, err := src.Migrate(h.ctx, request, ignoreProgress)
	if err != nil || r.Status != migration.StatusCompleted || !r.KeepSource {
		h.t.Fatalf("%v %+v", err, r)
	}
	src.awaitPhase(api.StandingBy)
	dst.awaitPhase(api.Running)
	dst.checkRuns()
	before := src.standby().Checkpoint
	h.eventually("checkpoints come", func() bool { return src.standby().Checkpoint > before+3 })
	steps := dst.check()
	h.eventually("the last check is in a checkpoint", func() bool { return src.standby().Checkpoint > before+8 })
	last := src.standby()
	if err := dst.Kill(); err != nil {
		h.t.Fatal(err)
	}
	src.awaitPhase(api.Running)
	if got := src.checkRuns(); got < steps {
		h.t.Errorf("the guest went back from %d steps to %d, beyond the checkpoint", steps, got)
	}
	h.t.Logf("%s: checkpoint %d: %d bytes, %d pages, pause %d us (worst %d), missed %d",
		dst.name, last.Checkpoint, last.Bytes, last.Pages, last.PauseUS, last.MaxPauseUS, last.Missed)
}

// TestKeepSourceBehindTLS: checkpoints come over connections of mutual TLS, also over one that takes the place of another, and the guest
// comes back.
func TestKeepSourceBehindTLS(t *testing.T) {
	hostTierOnly(t)
	vmmtest.NeedKVM(t)
	file := newPKI(t)
	h := newHouse(t)
	src := h.startDirty("src", "", keptLoad, "--memory", "64M")
	for n, mode := range []string{"Precopy", "Postcopy", "Hybrid"} {
		to := freePort(t)
		dst := h.start(fmt.Sprintf("dst%d", n), "destination.acknowledged#2=cut", "--incoming", to,
			"--tls-cert", file("dst.pem"), "--tls-key", file("dst.key"), "--tls-ca", file("ca.pem"))
		r := keptRequest(to, mode)
		r.TLSCert, r.TLSKey, r.TLSCA = file("src.pem"), file("src.key"), file("ca.pem")
		h.loseAt(src, dst, r)
	}
	src.stop()
}

// deaths are those of a destination since it owns the guest, most of whose memory is still at the source: what it is
// killed at, in the order in which one hand-over passes them.
var deaths = []string{
	"owner", "paging", "page", "page#4", "page#16", "checkpoint", "acknowledged", "complete", "checkpoint#3", "acknowledged#3",
}

// TestKeepSourceInPostcopy has one destination after the other die. The guest always comes back.
func TestKeepSourceInPostcopy(t *testing.T) {
	hostTierOnly(t)
	vmmtest.NeedKVM(t)
	for _, mode := range []string{"Postcopy", "Hybrid"} {
		t.Run(mode, func(t *testing.T) {
			h := newHouse(t)
			src := h.startDirty("src", "", keptLoad, "--memory", "64M", "--cpus", "2")
			before := src.check()
			for n, death := range deaths {
				dst, to := h.startIncoming(fmt.Sprintf("dst%d", n), "destination."+death+"=kill")
				r := keptRequest(to, mode)
				r.MaxBandwidthBytesPerSecond, r.DowntimeMS = 1<<20, 1 // that there is memory to come
				if mode == "Hybrid" {
					r.MaxBandwidthBytesPerSecond = 4 << 20 // each byte of its rounds is waited for
				}
				result, err := src.Migrate(h.ctx, r, ignoreProgress)
				if err != nil {
					t.Fatal(err)
				}
				if result.Status == migration.StatusCompleted && !result.SwitchedToPostcopy { // a guest that got no processor wrote nothing
					t.Logf("%s: the rounds converged", death)
					if err := dst.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
						t.Fatal(err)
					}
				}
				if code := dst.awaitExit(); code != -1 {
					t.Fatalf("%s: the destination ended with %d\n%s", death, code, dst.Stderr())
				}
				src.awaitPhase(api.Running)
				after := src.checkRuns()
				if after < before {
					t.Errorf("%s: the guest went from %d steps back to %d", death, before, after)
				}
				before = after
				t.Logf("killed at %s: %s, checkpoints %d", death, result.Status, result.Checkpoints)
			}
			src.stop()
		})
	}
}

// TestKeepSourceEnds: the ways in which a kept guest is given up.
func TestKeepSourceEnds(t *testing.T) {
	hostTierOnly(t)
	vmmtest.NeedKVM(t)
	for name, end := range map[string]func(src, dst *machine) error{
		"source stopped":        func(src, _ *machine) error { return src.API.Stop(src.h.ctx) },
		"given up by hand":      func(src, _ *machine) error { return src.API.ResolveMigration(src.h.ctx, api.DecisionDiscard) },
		"source killed":         func(src, _ *machine) error { return src.Kill() },
		"destination moves on":  func(_, dst *machine) error { return dst.moveOn() },
		"destination stopped":   func(_, dst *machine) error { return dst.API.Stop(dst.h.ctx) },
		"taken over while well": nil,
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			src, dst := h.moveKept("Postcopy")
			h.eventually("a checkpoint has come", func() bool { return src.standby().Checkpoint > 0 })
			if end == nil {
				if err := src.API.ResolveMigration(h.ctx, api.DecisionKeep); err == nil {
					t.Error("the guest was taken over though it runs")
				}
				src.awaitPhase(api.StandingBy)
				end = func(src, _ *machine) error { return src.API.Stop(src.h.ctx) }
			}
			if err := end(src, dst); err != nil {
				t.Fatal(err)
			}
			src.awaitGone()
			switch name {
			case "destination stopped", "destination moves on":
				if code := dst.awaitExit(); code != 0 {
					t.Errorf("the destination ended with %d\n%s", code, dst.Stderr())
				}
			default:
				dst.checkRuns()
				dst.stop()
			}
		})
	}
}

// TestKeptBesideRefusedMigration: a destination that fails to move its guest on gives checkpoints as before, and its death is one.
func TestKeptBesideRefusedMigration(t *testing.T) {
	hostTierOnly(t)
	vmmtest.NeedKVM(t)
	h := newHouse(t)
	src, dst := h.moveKept("Precopy")
	h.eventually("a checkpoint has come", func() bool { return src.standby().Checkpoint > 0 })
	if _, err := dst.Migrate(h.ctx, request("unix:"+h.path("nowhere")), ignoreProgress); err == nil {
		t.Fatal("the guest moved to nowhere")
	}
	before := src.standby().Checkpoint
	h.eventually("checkpoints go on", func() bool { return src.standby().Checkpoint > before+3 })
	if err := dst.Kill(); err != nil {
		t.Fatal(err)
	}
	src.awaitPhase(api.Running)
	src.verifyStatus("last migration +resumed-from-checkpoint: the destination died; the guest goes on here from checkpoint [0-9]+, which came")
	src.checkRuns()
	src.stop()
}

// verifyStatus looks for a pattern in what `fineline status` says.
func (m *machine) verifyStatus(pattern string) {
	m.h.t.Helper()
	out, errs, code := run(m.h.t, "status", "--api", m.APIPath)
	if code != 0 || !regexp.MustCompile(pattern).Match(out) {
		m.h.t.Errorf("status of %s: %d, %s%s; want %q in it", m.name, code, out, errs, pattern)
	}
}

// TestResultAfterStandby: it says what became of the guest, and not that the migration is as it was.
func TestResultAfterStandby(t *testing.T) {
	moved := migration.Result{Status: migration.StatusCompleted, KeepSource: true, Checkpoints: 3}
	back := afterStandby(moved, &migration.ResumedError{Checkpoint: 7, ByHand: true})
	if back.Status != migration.StatusResumed || back.KeepSource || back.Checkpoints != 7 || !strings.Contains(back.Error, "from checkpoint 7") {
		t.Errorf("%+v", back)
	}
	if lost := afterStandby(moved, migration.ErrDestinationDied); lost.Status != migration.StatusFailed || lost.KeepSource || lost.Error == "" {
		t.Errorf("%+v", lost)
	}
	if !moved.KeepSource {
		t.Error("the result of the migration itself was changed")
	}
}

// moveOn migrates a guest that was migrated to m once more, and lets it end there.
func (m *machine) moveOn() error {
	next, to := m.h.startIncoming("next", "")
	ctx, cancel := context.WithTimeout(m.h.ctx, time.Minute)
	defer cancel()
	if r, err := m.Migrate(ctx, request(to), ignoreProgress); err != nil || r.Status != migration.StatusCompleted {
		return fmt.Errorf("%w %+v", err, r)
	}
	next.awaitPhase(api.Running)
	next.checkRuns()
	next.stop()
	return nil
}

// TestSignalBeforeStandby: a signal that comes when the guest has moved, and its source does not know yet, gives the checkpoints up
// once there is something to give up, and not the guest.
func TestSignalBeforeStandby(t *testing.T) {
	hostTierOnly(t)
	vmmtest.NeedKVM(t)
	h := newHouse(t)
	src := h.startDirty("src", "", keptLoad, "--memory", "64M")
	// What it says after this does not arrive: the source asks, after a while.
	dst, to := h.startIncoming("dst", string(inject.DestinationOwner)+"=stall")
	before := src.check()
	h.watchForTwo(src, dst)
	owned := h.watchJournal(h.path("dst.journal"), journal.Owner)
	told := make(chan struct{})
	go func() {
		defer close(told)
		_, _ = src.Migrate(h.ctx, keptRequest(to, "Precopy"), ignoreProgress)
	}()
	if err := <-owned; err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(src.PID(), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := src.awaitExit(); code != 0 || src.lastPhase() != journal.Done {
		t.Errorf("the source ended with %d, and its journal with %q\n%s", code, src.lastPhase(), src.Stderr())
	}
	<-told
	if after := dst.checkRuns(); after < before {
		t.Errorf("the guest went from %d steps back to %d", before, after)
	}
	dst.stop()
	checkJournals(t, src, dst)
}
