package main

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fineline-vmm/fineline/migration"
	"github.com/fineline-vmm/fineline/migration/identity"
	"github.com/fineline-vmm/fineline/migration/journal"
	"github.com/fineline-vmm/fineline/migration/wire"
	"github.com/fineline-vmm/fineline/vmm/api"
)

// defaultJournal returns the last phase in the journal that a machine has made unasked, "" if there is none.
func (m *machine) defaultJournal() journal.Phase {
	m.h.t.Helper()
	path := m.journalPath()
	if path == "" {
		return ""
	}
	records, err := journal.ReadFile(path)
	if err != nil || len(records) == 0 {
		m.h.t.Fatalf("%s: %d records, %v", m.name, len(records), err)
	}
	return records[len(records)-1].Phase
}

// journalPath is where that one is, or "".
func (m *machine) journalPath() string {
	m.h.t.Helper()
	paths, err := filepath.Glob(m.h.path(m.name + ".run/fineline/*.journal"))
	if err != nil || len(paths) > 1 {
		m.h.t.Fatalf("%s has the journals %v, %v", m.name, paths, err)
	}
	if len(paths) == 0 {
		return ""
	}
	return paths[0]
}

// TestDefaultJournalGoes: after a migration that both sides know of, no journal is left.
func TestDefaultJournalGoes(t *testing.T) {
	h := newHouse(t)
	h.plain = true
	src := h.startDirty("src", "", ownershipLoad, "--memory", "64M")
	dst, to := h.startIncoming("dst", "")
	src.move(to)
	src.awaitGone()
	dst.checkRuns()
	dst.stop()
	if s, d := src.defaultJournal(), dst.defaultJournal(); s != "" || d != "" {
		t.Errorf("the journals of source and destination are left with %q and %q", s, d)
	}
}

// apart cuts the two sides off from each other at the commit: the destination is ready, or the owner already, and its address
// is gone, so that only the other's journal tells a side what to do when the other has ended.
func apart(t *testing.T, owner bool) (src, dst *machine, ended <-chan error) {
	h := newHouse(t)
	h.plain = true
	srcPlan, dstPlan, phase := "source.commit-sent=cut", "", api.InDoubt
	if owner {
		srcPlan, dstPlan, phase = "", "destination.owner=cut", api.Running
	}
	src = h.startDirty("src", srcPlan, "pages=512 rate=2000 verify=1 progress=0", "--memory", "64M")
	dst, to := h.startIncoming("dst", dstPlan)
	h.watchForTwo(src, dst)
	r := request(to)
	// Round one takes a second, and is the last: the address is gone long before the commit.
	r.Granularity, r.Compression, r.MaxBandwidthBytesPerSecond, r.DowntimeMS = "page", "none", 2<<20, 30_000
	h.eventually("each page was written", func() bool { return src.check() > 512 })
	result := make(chan error, 1)
	go func() {
		_, err := src.Migrate(h.ctx, r, func(p migration.Progress) {
			if p.Round > 0 {
				_ = os.Remove(h.path("dst.mig"))
			}
		})
		result <- err
	}()
	dst.awaitPhase(phase)
	return src, dst, result
}

// TestReadyDestinationIsStopped: it discards the guest and says so in its journal, which stays for the source.
func TestReadyDestinationIsStopped(t *testing.T) {
	src, dst, ended := apart(t, false)
	if err := dst.Close(); err != nil {
		t.Error(err)
	}
	<-ended
	src.awaitPhase(api.Running)
	src.checkRuns()
	src.stop()
	if s, d := src.defaultJournal(), dst.defaultJournal(); s != "" || d != journal.Discarded {
		t.Errorf("the journals of source and destination are left with %q and %q", s, d)
	}
}

// TestOwnerEndsUnheard: a destination takes the guest over, and ends before its source has heard of it.
func TestOwnerEndsUnheard(t *testing.T) {
	src, dst, ended := apart(t, true)
	if err := dst.Close(); err != nil {
		t.Error(err)
	}
	<-ended
	src.awaitGone()
	if s, d := src.defaultJournal(), dst.defaultJournal(); s != "" || d != journal.Owner {
		t.Errorf("the journals of source and destination are left with %q and %q", s, d)
	}
}

// TestDecidedByHand: a source whose guest stays by a human's word says so, and no more that somebody must decide. The word does not
// count while the destination lives, nor is it needed while that one's journal can be read.
func TestDecidedByHand(t *testing.T) {
	hostTierOnly(t)
	src, dst, ended := apart(t, false)
	if err := os.Remove(dst.journalPath()); err != nil {
		t.Fatal(err)
	}
	src.h.eventually("the source says that it asks", func() bool {
		status, err := src.API.Migration(src.h.ctx)
		return err == nil && strings.Contains(string(status), `"phase":"settling"`)
	})
	src.verifyStatus("guest +stands still: the connection is lost, and the destination is asked")
	if err := src.API.CancelMigration(src.h.ctx); err == nil || !strings.Contains(err.Error(), "the commit is sent and the connection lost") {
		t.Errorf("cancel: %v", err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	src.awaitPhase(api.InDoubt)
	src.verifyStatus("last migration +in-doubt: .*--in-doubt keep")
	keep := func() error { return src.API.ResolveMigration(src.h.ctx, api.DecisionKeep) }
	if err := keep(); err == nil || !strings.Contains(err.Error(), "the destination's process") {
		t.Errorf("keep while it lives: %v", err)
	}
	if err := dst.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := keep(); err != nil {
		t.Fatal(err)
	}
	src.awaitPhase(api.Running)
	src.verifyStatus("last migration +failed: decided by hand that the guest stays here: ")
	src.checkRuns()
	src.stop()
}

// TestHelloAndGone: whoever says HELLO and leaves does not end a destination.
func TestHelloAndGone(t *testing.T) {
	h := newHouse(t)
	src := h.startDirty("src", "", ownershipLoad, "--memory", "64M")
	dst, to := h.startIncoming("dst", "")
	conn, err := net.Dial("unix", h.path("dst.mig"))
	if err != nil {
		t.Fatal(err)
	}
	hello := wire.Hello{
		Purpose: wire.PurposeMigrate, Mode: wire.ModePrecopy, MachineID: "stranger", Generation: 1, Journal: "/nowhere", Process: identity.Process{PID: 1},
	}
	if err := wire.NewWriter(conn).Message(wire.TypeHello, hello); err != nil {
		t.Fatal(err)
	}
	_ = conn.(*net.UnixConn).CloseWrite()
	_, _ = io.Copy(io.Discard, conn) // until it has hung up
	_ = conn.Close()
	src.move(to)
	dst.checkRuns()
	dst.stop()
}

// TestStateDirIsChecked: others could make it first in a folder for temporary files.
func TestStateDirIsChecked(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"open to others": func(path string) error { return os.Mkdir(path, 0o755) },
		"a link":         func(path string) error { return os.Symlink(t.TempDir(), path) },
	} {
		runtime := t.TempDir()
		t.Setenv("XDG_RUNTIME_DIR", runtime)
		if err := make(filepath.Join(runtime, "fineline")); err != nil {
			t.Fatal(err)
		}
		if dir, err := stateDir(); err == nil {
			t.Errorf("%s: took %s", name, dir)
		}
	}
}
