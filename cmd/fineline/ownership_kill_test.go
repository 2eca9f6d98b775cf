package main

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/migration/inject"
	"github.com/fineline-vmm/fineline/migration/journal"
	"github.com/fineline-vmm/fineline/vmm/vmmtest"
)

// TestOwnershipKillOther kills one side from outside as soon as the other side's journal shows a
// phase. The dead side was wherever it was, so that its last record, which nobody can add to any more,
// says what the law wants.
func TestOwnershipKillOther(t *testing.T) {
	vmmtest.NeedKVM(t)
	for _, c := range []struct {
		side   journal.Side // whose journal is watched
		phase  journal.Phase
		faults string // of that side, to reach the phase
	}{
		{journal.Source, journal.Preflight, ""},
		{journal.Source, journal.Precopy, ""},
		{journal.Source, journal.Paused, ""},
		{journal.Source, journal.StateSent, ""},
		{journal.Source, journal.CommitSent, ""},
		{journal.Source, journal.Done, ""},
		{journal.Source, journal.Failed, "source.state-sent=error"},
		{journal.Destination, journal.Accepted, ""},
		{journal.Destination, journal.Receiving, ""},
		{journal.Destination, journal.Ready, ""},
		{journal.Destination, journal.Owner, ""},
		{journal.Destination, journal.Discarded, "destination.ready=error"},
	} {
		t.Run(string(c.side)+" "+string(c.phase), func(t *testing.T) {
			h := newHouse(t)
			srcFaults, dstFaults := c.faults, ""
			if c.side == journal.Destination {
				srcFaults, dstFaults = "", c.faults
			}
			src := h.startDirty("src", srcFaults, ownershipLoad, "--memory", "64M")
			dst, to := h.startIncoming("dst", dstFaults)
			before := src.check()
			h.watchForTwo(src, dst)
			watched, victim := src, dst
			if c.side == journal.Destination {
				watched, victim = dst, src
			}
			reached := h.watchJournal(h.path(watched.name+".journal"), c.phase)
			killed := make(chan error, 1)
			go func() {
				err := <-reached
				if err == nil {
					err = victim.Kill()
				}
				killed <- err
			}()
			// Its outcome is the survivor's to tell; a killed source tells none.
			_, _ = src.Migrate(h.ctx, request(to), ignoreProgress)
			if err := <-killed; err != nil && !errors.Is(err, os.ErrProcessDone) {
				t.Fatal(err)
			}
			want := lawOfTheDead(src, dst, victim)
			if c.phase == journal.Discarded {
				want = nobody // it had thrown its copy away when the source died
			}
			verifyOwner(t, src, dst, want, before)
		})
	}
}

// lawOfTheDead says whose the guest is, from the journal that the killed side left.
func lawOfTheDead(src, dst, dead *machine) owner {
	if exitCode(dead.Err()) >= 0 { // it had ended well before it could be killed
		return atDestination
	}
	if dead == dst {
		if dst.lastPhase() == journal.Owner {
			return nobody // the guest died with its owner
		}
		return atSource
	}
	switch src.lastPhase() {
	case journal.StateSent, journal.CommitSent, journal.Done:
		return atDestination // it has all, and there is the proof
	case journal.Paused:
		// The state may have left whole before its record was written.
		dst.h.eventually("the destination has decided", func() bool {
			p := dst.lastPhase()
			return p == journal.Owner || p == journal.Discarded
		})
		if dst.lastPhase() == journal.Owner {
			return atDestination
		}
	}
	return nobody
}

// watchJournal reports when a phase is in the journal, woken by the kernel at each write.
func (h *house) watchJournal(path string, phase journal.Phase) <-chan error {
	h.t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		h.t.Fatal(err)
	}
	events := os.NewFile(uintptr(fd), "inotify") // non-blocking: Close ends a Read
	h.t.Cleanup(func() { _ = events.Close() })
	// The folder, since a source opens its journal with its first migration.
	if _, err := unix.InotifyAddWatch(fd, h.dir, unix.IN_MODIFY|unix.IN_CREATE); err != nil {
		h.t.Fatal(err)
	}
	reached := make(chan error, 1)
	go func() {
		buf := make([]byte, 64<<10)
		for {
			records, err := journal.ReadFile(path)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				reached <- err
				return
			}
			for _, r := range records {
				if r.Phase == phase {
					reached <- nil
					return
				}
			}
			if _, err := events.Read(buf); err != nil {
				reached <- err
				return
			}
		}
	}()
	return reached
}

// TestFaultPlanIsChecked: a plan with a mistake must not be a test that tests nothing.
func TestFaultPlanIsChecked(t *testing.T) {
	h := newHouse(t)
	src := h.startDirty("src", "source.nowhere=kill", ownershipLoad)
	_, err := src.Migrate(h.ctx, request("unix:"+h.path("none")), ignoreProgress)
	if err == nil || exitCode(err) != -1 {
		t.Errorf("%v: want a refusal that names %s", err, inject.EnvVar)
	}
	src.checkRuns()
	src.stop()
}
