package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fineline-vmm/fineline/migration"
)

// TestRowsOfPostcopy: what is sent has not arrived yet, and nobody reads that nothing is to go.
func TestRowsOfPostcopy(t *testing.T) {
	p := migration.Progress{Phase: migration.PhasePostcopy, BytesSent: 1 << 20, PostcopyPages: 512, AbsentPages: 256}
	s := migrationStatus{Outgoing: &p}
	if got := fmt.Sprint(s.rows()); !strings.Contains(got, "1 MiB of 2 MiB") {
		t.Error(got)
	}
	if got := unsentText(&p); got != "1 MiB are not sent yet" {
		t.Error(got)
	}
	p.AbsentPages = 0
	if got := fmt.Sprint(s.rows()); strings.Contains(got, "memory to go") || !strings.Contains(got, "the destination stores the last") {
		t.Error(got)
	}
	if got := unsentText(&p); !strings.Contains(got, "the destination stores the last") {
		t.Error(got)
	}
	p.Phase = migration.PhaseReconnecting
	if got := fmt.Sprint(unsentText(&p), s.rows()); strings.Contains(got, "all ") || strings.Contains(got, " 0 B") {
		t.Error(got)
	}
}

// TestRowsOfEnded: a guest that was ended before its memory was there is not said to have just arrived.
func TestRowsOfEnded(t *testing.T) {
	s := migrationStatus{Result: &migration.Result{Status: migration.StatusCompleted, EndedThere: true}}
	if got := fmt.Sprint(s.rows()); !strings.Contains(got, "ended at the destination before all its memory") {
		t.Error(got)
	}
	s.Result.EndedThere = false
	if got := fmt.Sprint(s.rows()); strings.Contains(got, "ended") {
		t.Error(got)
	}
}

// TestRowsOfPausedGuest: rates of a guest that stands still are nonsense, and a round is not named twice.
func TestRowsOfPausedGuest(t *testing.T) {
	p := migration.Progress{Phase: migration.PhasePrecopy, Mode: "hybrid", Round: 2, DirtyPagesPerS: 7, DirtyLinesPerS: 9, ThrottlePercent: 20}
	s := migrationStatus{Outgoing: &p}
	if got := fmt.Sprint(s.rows()); !strings.Contains(got, "hybrid, round 2, guest slowed") || !strings.Contains(got, "7 pages/s, 9 lines/s") || !strings.Contains(got, "slowed down") {
		t.Error(got)
	}
	for _, phase := range []string{"pausing", "commit", migration.PhaseSettling} {
		p.Phase = phase
		if got := fmt.Sprint(s.rows()); strings.Contains(got, "/s, 9") || strings.Contains(got, "slowed") || strings.Contains(got, "of this one") {
			t.Errorf("%s: %s", phase, got)
		}
	}
	if got := fmt.Sprint(s.rows()); !strings.Contains(got, "the destination is asked whether it has the guest") {
		t.Error(got)
	}
}

// TestWayOnFromFullDisk: who reads that the journal's disk is full reads, too, where the guest is and what to do.
func TestWayOnFromFullDisk(t *testing.T) {
	full := fmt.Errorf("journal a.journal: %w", &fs.PathError{Op: "write", Path: "a.journal", Err: unix.ENOSPC})
	if err := withNextStep(full); !errors.Is(err, full) || !strings.HasSuffix(err.Error(), "; the guest is still here: make room, and migrate again") {
		t.Error(err)
	}
	if err := withNextStep(migration.ErrTimeout); !errors.Is(err, migration.ErrTimeout) || strings.Contains(err.Error(), "still here") {
		t.Error(err)
	}
}
